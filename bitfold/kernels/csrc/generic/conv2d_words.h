/* The loops around a register tile that reads indices as 16-bit words, from a copy of the input
 * that is widened once for all channels.
 */
#ifndef BITFOLD_CONV2D_WORDS_H
#define BITFOLD_CONV2D_WORDS_H

#include "generic/conv2d_direct.h"

static inline void bf_widen(const uint8_t *restrict x, size_t count, uint16_t *restrict out) {
  for (size_t i = 0; i < count; i++) {
    out[i] = x[i];
  }
}

/* `count` words of padding. */
static inline void bf_pad_words(const bf_step *restrict step, size_t count,
                                uint16_t *restrict out) {
  for (size_t i = 0; i < count; i++) {
    out[i] = (uint16_t)step->fill;
  }
}

/* Row `i` of the channels at `x` between its two borders. */
static inline void bf_widen_row(const bf_step *restrict step, const uint8_t *restrict x, size_t i,
                                uint16_t *restrict copy) {
  const size_t depth = step->group_c;
  bf_pad_words(step, step->left * depth, copy);
  copy += step->left * depth;
  if (depth == step->c) {
    bf_widen(x + i * step->w * depth, step->w * depth, copy);
  } else {
    for (size_t j = 0; j < step->w; j++) {
      bf_widen(x + (i * step->w + j) * step->c, depth, copy + j * depth);
    }
  }
  copy += step->w * depth;
  bf_pad_words(step, (step->padded_w - step->left - step->w) * depth, copy);
}

/* The input as words (groups, padded_h, padded_w, group_c), as far as `part` reads it. */
static inline uint16_t *bf_widened_input(const bf_step *restrict step, uint8_t *restrict arena,
                                         const bf_share *restrict share,
                                         const bf_conv_part *restrict part) {
  uint16_t *copies = (uint16_t *)(void *)bf_scratch(step, arena, share);
  const size_t pitch = step->padded_w * step->group_c;
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t last = part->blocks.end ? (part->blocks.end - 1) / per_group + 1 : 0;
  const bf_span rows = bf_input_rows(step, part->rows);
  for (size_t group = part->blocks.begin / per_group; group < last; group++) {
    const uint8_t *x = arena + step->x + group * step->group_c;
    for (size_t i = rows.begin; i < rows.end; i++) {
      uint16_t *row = copies + (group * step->padded_h + i) * pitch;
      if (i < step->top || i >= step->top + step->h) {
        bf_pad_words(step, pitch, row);
      } else {
        bf_widen_row(step, x, i - step->top, row);
      }
    }
  }
  return copies;
}

/* The share's blocks of 16 channels and rows. */
static inline __attribute__((always_inline)) void bf_convolve_words(const bf_step *restrict step,
                                                                    uint8_t *restrict arena,
                                                                    const bf_share *restrict share,
                                                                    const bf_tile_kernel tile,
                                                                    const size_t tile_pixels) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint16_t *input = bf_widened_input(step, arena, share, &part);
  bf_step words = *step;
  words.group_c = sizeof *input * step->group_c; /* bytes of a pixel, which is all that tiles ask */
  bf_convolve_part(&words, arena, (const uint8_t *)input, &part, tile, tile_pixels);
}

#endif
