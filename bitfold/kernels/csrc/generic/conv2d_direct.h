/* The loops around a register tile. Include behind a definition of
 *
 *   void bf_tile(const bf_step *step, uint8_t *arena, const bf_tile_place *place)
 *
 * which computes place->num_pixels <= BF_TILE_PIXELS output pixels of one block of 16 channels.
 */
#ifndef BITFOLD_CONV2D_DIRECT_H
#define BITFOLD_CONV2D_DIRECT_H

#include "generic/epilogue.h"
#include "generic/geometry.h"

enum { BF_MAX_PIXELS = 8 };

typedef struct bf_tile_place {
  const uint8_t *windows[BF_MAX_PIXELS]; /* first input byte of each pixel */
  size_t num_pixels;
  const void *panel;
  size_t panel_bytes; /* tiles of two blocks: from the first panel to the second */
  size_t group;
  size_t lane;  /* first lane of the block, over all groups */
  size_t count; /* channels of the block, or of both, that exist */
  size_t at;    /* output element of the first pixel and channel */
  /* Of wide weights (blocks, pixels, 16) sums: of the higher digits, NULL for the highest, and
   * where those with this digit go, NULL for the lowest. The same place, if both.
   */
  const int32_t *higher;
  int32_t *kept;
} bf_tile_place;

typedef void (*bf_tile_kernel)(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_tile_place *restrict place);

/* Output pixels in row-major order: the window of the next one. */
typedef struct bf_cursor {
  const uint8_t *window, *row;
  size_t column;
} bf_cursor;

static inline void bf_advance(const bf_step *restrict step, bf_cursor *restrict cursor) {
  cursor->window += step->stride_w * step->group_c;
  if (++cursor->column == step->ow) {
    cursor->row += step->stride_h * step->padded_w * step->group_c;
    cursor->window = cursor->row;
    cursor->column = 0;
  }
}

enum { BF_MAX_TILE_SUMS = 2 * BF_MAX_PIXELS * BF_LANES };

/* One tile, digit after digit of the weights; a tile adds its sums to those of higher digits. */
static inline __attribute__((always_inline)) void bf_convolve_tile(const bf_step *restrict step,
                                                                   uint8_t *restrict arena,
                                                                   bf_tile_place *restrict place,
                                                                   const bf_tile_kernel tile) {
  int32_t sums[BF_MAX_TILE_SUMS];
  const char *panel = place->panel;
  const size_t digits = step->digits > 1 ? step->digits : 1;
  for (size_t i = 0; i < digits; i++) {
    place->panel = panel + i * (step->panel_bytes / digits);
    place->higher = i ? sums : NULL;
    place->kept = i + 1 < digits ? sums : NULL;
    tile(step, arena, place);
  }
  place->panel = panel;
}

static inline __attribute__((always_inline)) void bf_convolve_block(
    const bf_step *restrict step, uint8_t *restrict arena, const uint8_t *image, bf_span rows,
    bf_tile_place place, const bf_tile_kernel tile, const size_t tile_pixels) {
  const size_t num_pixels = (rows.end - rows.begin) * step->ow;
  const uint8_t *first = bf_window(step, image, rows.begin * step->ow);
  bf_cursor cursor = {first, first, 0};
  for (size_t i = 0; i < tile_pixels; i++) {
    place.windows[i] = first; /* a last tile that is not full computes some pixel twice */
  }
  for (size_t pixel = 0; pixel < num_pixels; pixel += tile_pixels) {
    const size_t left = num_pixels - pixel;
    place.num_pixels = left < tile_pixels ? left : tile_pixels;
    for (size_t i = 0; i < place.num_pixels; i++) {
      place.windows[i] = cursor.window;
      bf_advance(step, &cursor);
    }
    bf_convolve_tile(step, arena, &place, tile);
    place.at += tile_pixels * step->o;
  }
}

/* The place of block `block` of 16 channels, and its group's image in `input`. */
static inline bf_tile_place bf_block_place(const bf_step *restrict step, size_t block) {
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t group = block / per_group;
  const size_t o = block % per_group * BF_LANES;
  const size_t left = step->group_o - o;
  return (bf_tile_place){.panel = (const char *)step->weight + block * step->panel_bytes,
                         .group = group,
                         .lane = block * BF_LANES,
                         .count = left < BF_LANES ? left : BF_LANES,
                         .at = group * step->group_o + o};
}

/* Blocks of 16 channels and rows of outputs, from a padded input. */
static inline __attribute__((always_inline)) void bf_convolve_part(
    const bf_step *restrict step, uint8_t *restrict arena, const uint8_t *restrict input,
    const bf_conv_part *restrict part, const bf_tile_kernel tile, const size_t tile_pixels) {
  for (size_t block = part->blocks.begin; block < part->blocks.end; block++) {
    bf_tile_place place = bf_block_place(step, block);
    place.at += part->rows.begin * step->ow * step->o;
    bf_convolve_block(step, arena, input + place.group * bf_image_bytes(step), part->rows, place,
                      tile, tile_pixels);
  }
}

/* The share's blocks and rows. */
static inline __attribute__((always_inline)) void bf_convolve(const bf_step *restrict step,
                                                              uint8_t *restrict arena,
                                                              const bf_share *restrict share,
                                                              const bf_tile_kernel tile,
                                                              const size_t tile_pixels) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint8_t *input = bf_padded_input(step, arena, share, &part);
  bf_convolve_part(step, arena, input, &part, tile, tile_pixels);
}

#endif
