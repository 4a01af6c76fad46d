/* Convolution by look-up in rows of 16 bytes, in plain C. */
#include "generic/conv2d_dictionary.h"

enum { BF_VECTOR = 32 };

/* sums[32] of one vector at one pixel. */
static inline void bf_lookup_sums(const bf_step *restrict step, const uint8_t *restrict weight,
                                  const uint16_t *restrict window, uint32_t *restrict sums) {
  const bf_dictionary *dictionary = step->extra;
  const size_t pairs = step->kernel_w * dictionary->pixel_groups / 2;
  memset(sums, 0, BF_VECTOR * sizeof *sums);
  for (size_t row = 0; row < step->kernel_h; row++) {
    const uint16_t *x = window + row * step->padded_w * dictionary->pixel_groups;
    for (size_t k = 0; k < pairs; k++) {
      const uint8_t *low = dictionary->table + x[2 * k], *high = dictionary->table + x[2 * k + 1];
      for (size_t i = 0; i < BF_VECTOR; i++) {
        sums[i] += (uint32_t)low[weight[i] & 15] + high[weight[i] >> 4];
      }
      weight += BF_VECTOR;
    }
  }
}

/* One vector at one pixel: blocks b and b + 1 are its even and its odd bytes. */
static inline void bf_lookup_scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                    const bf_lookup_place *restrict place, size_t pixel,
                                    size_t vector) {
  const bf_dictionary *dictionary = step->extra;
  const size_t per_group = step->group_lanes / BF_LANES;
  uint32_t sums[BF_VECTOR];
  bf_lookup_sums(step, place->panel + vector * step->panel_bytes, place->windows[pixel], sums);
  for (size_t half = 0; half < 2; half++) {
    const size_t block = place->blocks.begin + 2 * vector + half;
    const size_t lane = block * BF_LANES, o = block % per_group * BF_LANES;
    const size_t left = step->group_o - o;
    int32_t acc[BF_LANES];
    if (block < place->wanted.begin || block >= place->wanted.end) {
      continue;
    }
    for (size_t i = 0; i < BF_LANES; i++) {
      const uint32_t sum = (uint32_t)dictionary->factor * sums[2 * i + half];
      acc[i] = (int32_t)((uint32_t)step->bias[lane + i] + sum);
    }
    bf_finish(step, arena, acc, lane, left < BF_LANES ? left : BF_LANES,
              (place->pixel + pixel) * step->o + block / per_group * step->group_o + o);
  }
}

static inline void bf_lookup_tile_scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                         const bf_lookup_place *restrict place) {
  const size_t num_vectors = (place->blocks.end - place->blocks.begin) / 2;
  for (size_t pixel = 0; pixel < place->num_pixels; pixel++) {
    for (size_t vector = 0; vector < num_vectors; vector++) {
      bf_lookup_scalar(step, arena, place, pixel, vector);
    }
  }
}

void bf_conv2d_dictionary__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share);

void bf_conv2d_dictionary__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  const bf_lookup_tiles tiles = {NULL, bf_lookup_tile_scalar, bf_lookup_tile_scalar};
  bf_convolve_lookups(step, arena, share, bf_encode_scalar, tiles);
}
