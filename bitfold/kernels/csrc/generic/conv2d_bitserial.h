/* The loops around bit-serial tiles: every input row is cut into bit planes once, the planes of a
 * window are gathered from them, and serve all output channels.
 *
 * Pixels take whole bytes in a plane (group_c rounded up to 8 bits), so that a kernel row of a
 * window is a run of bytes. Scratch behind the padded copy, see bf_plane_areas.
 */
#ifndef BITFOLD_CONV2D_BITSERIAL_H
#define BITFOLD_CONV2D_BITSERIAL_H

#include "generic/epilogue.h"
#include "generic/geometry.h"

enum { BF_PLANE_PIXELS = 4, BF_PLANE_BLOCKS = 4 };

/* planes (x_planes, num_words) of 32 * num_words bytes; ISA-specific. */
typedef void (*bf_plane_packer)(const uint8_t *restrict bytes, size_t num_words, size_t num_planes,
                                uint32_t *restrict planes);

/* dots[16] = sum over planes p, q of the ones in (x[p] op w[q][lane]) << (p + q), for one window
 * and one block; ISA-specific. `op` is the layout's bf_plane_op.
 */
typedef void (*bf_plane_dot)(const bf_step *restrict step, const uint32_t *restrict x,
                             const uint32_t *restrict w, uint32_t *restrict dots);

/* The same for 4 windows and 4 blocks: dots (pixels, blocks, 16). */
typedef bf_plane_dot bf_plane_tile;

typedef struct bf_plane_areas {
  uint8_t *bytes;    /* one padded row, a pixel in bit_depth bytes */
  uint32_t *planes;  /* (padded_h, x_planes, row_words) */
  uint32_t *sums;    /* of the indices of every pixel (padded_h, padded_w) */
  uint32_t *windows; /* (4, x_planes, num_words) */
} bf_plane_areas;

static inline bf_plane_areas bf_areas_of_planes(const bf_step *restrict step,
                                                uint8_t *restrict arena,
                                                const bf_share *restrict share) {
  const bf_planes *planes = step->extra;
  const size_t copy_bytes = step->has_copy ? step->groups * bf_image_bytes(step) : 0;
  bf_plane_areas areas;
  areas.bytes = bf_scratch(step, arena, share) + (copy_bytes + 127) / 64 * 64;
  areas.planes = (uint32_t *)(void *)(areas.bytes + 32 * planes->row_words);
  /* Windows may be read past the last row: 16 words behind the planes. */
  areas.sums = areas.planes + step->padded_h * step->x_planes * planes->row_words + 16;
  areas.windows = areas.sums + step->padded_h * step->padded_w;
  return areas;
}

/* One row of pixels as bytes, each pixel filled up with zeros to bit_depth. */
static inline const uint8_t *bf_row_bytes(const bf_step *restrict step, const uint8_t *row,
                                          uint8_t *restrict bytes) {
  const size_t depth = step->group_c, bit_depth = ((const bf_planes *)step->extra)->bit_depth;
  if (depth == bit_depth) {
    return row;
  }
  for (size_t j = 0; j < step->padded_w; j++) {
    memcpy(bytes + j * bit_depth, row + j * depth, depth);
    memset(bytes + j * bit_depth + depth, 0, bit_depth - depth);
  }
  return bytes;
}

static inline uint32_t bf_sum_of_bytes(const uint8_t *restrict x, size_t count) {
  uint32_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    sum += x[i];
  }
  return sum;
}

/* Planes, and sums where the step needs them, of the rows `rows` of a padded image. */
static inline __attribute__((always_inline)) void bf_pack_rows(const bf_step *restrict step,
                                                               const uint8_t *image, bf_span rows,
                                                               const bf_plane_areas *areas,
                                                               const bf_plane_packer pack) {
  const bf_planes *planes = step->extra;
  for (size_t i = rows.begin; i < rows.end; i++) {
    const uint8_t *row = image + i * step->padded_w * step->group_c;
    pack(bf_row_bytes(step, row, areas->bytes), planes->row_words, step->x_planes,
         areas->planes + i * step->x_planes * planes->row_words);
    for (size_t j = 0; step->w_lo && j < step->padded_w; j++) {
      areas->sums[i * step->padded_w + j] = bf_sum_of_bytes(row + j * step->group_c, step->group_c);
    }
  }
}

/* Planes (x_planes, num_words) of the window at (row, column); bits past a kernel row are zero. */
static inline void bf_gather_planes(const bf_step *restrict step, const bf_plane_areas *areas,
                                    size_t row, size_t column, uint32_t *restrict window) {
  const bf_planes *planes = step->extra;
  const size_t run_bytes = step->kernel_w * planes->bit_depth / 8;
  const size_t run_words = (run_bytes + 3) / 4;
  const uint32_t mask = UINT32_MAX >> (32 * run_words - 8 * run_bytes);
  for (size_t p = 0; p < step->x_planes; p++) {
    for (size_t i = 0; i < step->kernel_h; i++) {
      const uint32_t *plane = areas->planes + ((row + i) * step->x_planes + p) * planes->row_words;
      const uint8_t *run = (const uint8_t *)plane + column * planes->bit_depth / 8;
      for (size_t k = 0; k < run_words; k++) {
        memcpy(window + k, run + 4 * k, sizeof *window);
      }
      window[run_words - 1] &= mask;
      window += run_words;
    }
  }
}

static inline uint32_t bf_window_sum(const bf_step *restrict step, const bf_plane_areas *areas,
                                     size_t row, size_t column) {
  uint32_t sum = 0;
  for (size_t i = 0; step->w_lo && i < step->kernel_h; i++) {
    for (size_t j = 0; j < step->kernel_w; j++) {
      sum += areas->sums[(row + i) * step->padded_w + column + j];
    }
  }
  return sum;
}

/* Accumulators (num_pixels, 16) of lanes lane ... into the output from element `at`. */
typedef void (*bf_plane_finisher)(const bf_step *restrict step, uint8_t *restrict arena,
                                  const int32_t *restrict acc, size_t num_pixels, size_t lane,
                                  size_t count, size_t at);

static inline void bf_finish_pixels(const bf_step *restrict step, uint8_t *restrict arena,
                                    const int32_t *restrict acc, size_t num_pixels, size_t lane,
                                    size_t count, size_t at) {
  for (size_t i = 0; i < num_pixels; i++) {
    bf_finish(step, arena, acc + i * BF_LANES, lane, count, at + i * step->o);
  }
}

/* acc (num_pixels, 16) of the lanes lane …, from dots that lie `stride` apart: bias + x_step *
 * (w_step
 * * dot + w_lo * sum of the window), modulo 2^32.
 */
typedef void (*bf_plane_recombiner)(const bf_step *restrict step, const uint32_t *restrict dots,
                                    size_t stride, const uint32_t *restrict sums, size_t num_pixels,
                                    size_t lane, int32_t *restrict acc);

static inline void bf_recombine_dots(const bf_step *restrict step, const uint32_t *restrict dots,
                                     size_t stride, const uint32_t *restrict sums,
                                     size_t num_pixels, size_t lane, int32_t *restrict acc) {
  for (size_t i = 0; i < num_pixels; i++) {
    for (size_t j = 0; j < BF_LANES; j++) {
      const uint32_t dot = (uint32_t)step->w_step * dots[i * stride + j];
      const uint32_t codes = dot + (uint32_t)step->w_lo * sums[i];
      acc[i * BF_LANES + j] =
          (int32_t)((uint32_t)step->bias[lane + j] + (uint32_t)step->x_step * codes);
    }
  }
}

/* As bf_gather_planes; ISA-specific. It may write 15 words behind the window. */
typedef void (*bf_plane_gatherer)(const bf_step *restrict step, const bf_plane_areas *areas,
                                  size_t row, size_t column, uint32_t *restrict window);

/* How one ISA does it; `tile` may be NULL. */
typedef struct bf_plane_ways {
  bf_plane_packer pack;
  bf_plane_dot dot;
  bf_plane_tile tile;
  bf_plane_finisher finish;
  bf_plane_gatherer gather;
  bf_plane_recombiner recombine;
} bf_plane_ways;

/* Results of block `block` from output pixel `pixel`; the dots of a pixel are `stride` from those
 * of the one before, sums[i] is what its window sums to.
 */
static inline __attribute__((always_inline)) void bf_finish_dots(
    const bf_step *restrict step, uint8_t *arena, const uint32_t *dots, size_t stride,
    const uint32_t *sums, size_t num_pixels, size_t block, size_t pixel, const bf_plane_ways ways) {
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t lane = block * BF_LANES;
  const size_t group = block / per_group, o = block % per_group * BF_LANES;
  const size_t left = step->group_o - o;
  int32_t acc[BF_PLANE_PIXELS * BF_LANES];
  ways.recombine(step, dots, stride, sums, num_pixels, lane, acc);
  ways.finish(step, arena, acc, num_pixels, lane, left < BF_LANES ? left : BF_LANES,
              pixel * step->o + group * step->group_o + o);
}

/* Blocks `blocks` of one group at the `num_pixels` pixels whose windows are gathered. */
static inline __attribute__((always_inline)) void bf_plane_pixels(
    const bf_step *restrict step, uint8_t *arena, const bf_plane_areas *areas, const uint32_t *sums,
    bf_span blocks, size_t pixel, size_t num_pixels, const bf_plane_ways ways) {
  const size_t window_words = step->x_planes * step->num_words;
  uint32_t dots[BF_PLANE_PIXELS * BF_PLANE_BLOCKS * BF_LANES];
  size_t num_blocks;
  for (size_t block = blocks.begin; block < blocks.end; block += num_blocks) {
    const char *panel = (const char *)step->weight + block * step->panel_bytes;
    const uint32_t *weight = (const uint32_t *)(const void *)panel;
    const size_t is_full =
        ways.tile && num_pixels == BF_PLANE_PIXELS && blocks.end - block >= BF_PLANE_BLOCKS;
    num_blocks = is_full ? BF_PLANE_BLOCKS : 1;
    if (is_full) {
      ways.tile(step, areas->windows, weight, dots);
    }
    for (size_t i = 0; !is_full && i < num_pixels; i++) {
      ways.dot(step, areas->windows + i * window_words, weight, dots + i * BF_LANES);
    }
    for (size_t j = 0; j < num_blocks; j++) {
      bf_finish_dots(step, arena, dots + j * BF_LANES, num_blocks * BF_LANES, sums, num_pixels,
                     block + j, pixel, ways);
    }
  }
}

/* Blocks `blocks` of one group at all pixels of the rows `rows`. */
static inline __attribute__((always_inline)) void bf_plane_rows(const bf_step *restrict step,
                                                                uint8_t *arena,
                                                                const bf_plane_areas *areas,
                                                                bf_span rows, bf_span blocks,
                                                                const bf_plane_ways ways) {
  const size_t end = rows.end * step->ow, window_words = step->x_planes * step->num_words;
  for (size_t pixel = rows.begin * step->ow; pixel < end; pixel += BF_PLANE_PIXELS) {
    const size_t left = end - pixel;
    const size_t num_pixels = left < BF_PLANE_PIXELS ? left : BF_PLANE_PIXELS;
    uint32_t sums[BF_PLANE_PIXELS];
    for (size_t i = 0; i < num_pixels; i++) {
      const size_t row = (pixel + i) / step->ow * step->stride_h;
      const size_t column = (pixel + i) % step->ow * step->stride_w;
      ways.gather(step, areas, row, column, areas->windows + i * window_words);
      sums[i] = bf_window_sum(step, areas, row, column);
    }
    bf_plane_pixels(step, arena, areas, sums, blocks, pixel, num_pixels, ways);
  }
}

/* The share's groups, rows and blocks. */
static inline __attribute__((always_inline)) void bf_convolve_plane_tiles(
    const bf_step *restrict step, uint8_t *arena, const bf_share *share, const bf_plane_ways ways) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint8_t *input = bf_padded_input(step, arena, share, &part);
  const bf_plane_areas areas = bf_areas_of_planes(step, arena, share);
  const size_t per_group = step->group_lanes / BF_LANES;
  bf_span blocks = part.blocks;
  while (blocks.begin < part.blocks.end) {
    const size_t group = blocks.begin / per_group, last = (group + 1) * per_group;
    blocks.end = last < part.blocks.end ? last : part.blocks.end;
    bf_pack_rows(step, input + group * bf_image_bytes(step), bf_input_rows(step, part.rows), &areas,
                 ways.pack);
    bf_plane_rows(step, arena, &areas, part.rows, blocks, ways);
    blocks.begin = blocks.end;
  }
}

/* The same without tiles or vectors in the epilogue. */
static inline __attribute__((always_inline)) void bf_convolve_planes(const bf_step *restrict step,
                                                                     uint8_t *arena,
                                                                     const bf_share *share,
                                                                     const bf_plane_packer pack,
                                                                     const bf_plane_dot dot) {
  const bf_plane_ways ways = {
      pack, dot, NULL, bf_finish_pixels, bf_gather_planes, bf_recombine_dots};
  bf_convolve_plane_tiles(step, arena, share, ways);
}

#endif
