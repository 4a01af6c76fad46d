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
  size_t lane;  /* first lane of the block, over all groups */
  size_t count; /* channels of the block that exist, at most 16 */
  size_t at;    /* output element of the first pixel and channel */
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

static inline __attribute__((always_inline)) void bf_convolve_block(
    const bf_step *restrict step, uint8_t *restrict arena, const uint8_t *image,
    bf_tile_place place, const bf_tile_kernel tile, const size_t tile_pixels) {
  const size_t num_pixels = step->oh * step->ow;
  bf_cursor cursor = {image, image, 0};
  for (size_t i = 0; i < tile_pixels; i++) {
    place.windows[i] = image; /* a last tile that is not full computes some pixel twice */
  }
  for (size_t pixel = 0; pixel < num_pixels; pixel += tile_pixels) {
    const size_t left = num_pixels - pixel;
    place.num_pixels = left < tile_pixels ? left : tile_pixels;
    for (size_t i = 0; i < place.num_pixels; i++) {
      place.windows[i] = cursor.window;
      bf_advance(step, &cursor);
    }
    tile(step, arena, &place);
    place.at += tile_pixels * step->o;
  }
}

/* All groups, blocks of 16 channels and pixels. */
static inline __attribute__((always_inline)) void bf_convolve(const bf_step *restrict step,
                                                              uint8_t *restrict arena,
                                                              const bf_tile_kernel tile,
                                                              const size_t tile_pixels) {
  const uint8_t *input = bf_padded_input(step, arena);
  const char *panel = step->weight;
  for (size_t group = 0; group < step->groups; group++) {
    for (size_t o = 0; o < step->group_o; o += BF_LANES) {
      const size_t left = step->group_o - o;
      const bf_tile_place place = {.panel = panel,
                                   .lane = group * step->group_lanes + o,
                                   .count = left < BF_LANES ? left : BF_LANES,
                                   .at = group * step->group_o + o};
      bf_convolve_block(step, arena, input + group * bf_image_bytes(step), place, tile,
                        tile_pixels);
      panel += step->panel_bytes;
    }
  }
}

#endif
