/* Where a convolution finds its input: a padded copy in scratch, or the input itself. */
#ifndef BITFOLD_GEOMETRY_H
#define BITFOLD_GEOMETRY_H

#include <string.h>

#include "bitfold_kernels.h"

/* Copies `h` rows of channels [start, start + group_c) into the middle of a padded image. */
static inline void bf_copy_group(const bf_step *restrict step, const uint8_t *restrict x,
                                 uint8_t *restrict copy) {
  const size_t depth = step->group_c;
  const size_t row_bytes = step->w * depth;
  const size_t left_bytes = step->left * depth;
  const size_t right_bytes = step->padded_w * depth - left_bytes - row_bytes;
  const size_t top_bytes = step->top * step->padded_w * depth;
  const size_t bottom_rows = step->padded_h - step->top - step->h;
  const int fill = (int)step->fill;
  memset(copy, fill, top_bytes);
  copy += top_bytes;
  for (size_t i = 0; i < step->h; i++) {
    memset(copy, fill, left_bytes);
    copy += left_bytes;
    if (depth == step->c) {
      memcpy(copy, x + i * row_bytes, row_bytes);
    } else {
      for (size_t j = 0; j < step->w; j++) {
        memcpy(copy + j * depth, x + (i * step->w + j) * step->c, depth);
      }
    }
    copy += row_bytes;
    memset(copy, fill, right_bytes);
    copy += right_bytes;
  }
  memset(copy, fill, bottom_rows * step->padded_w * depth);
}

static inline size_t bf_image_bytes(const bf_step *restrict step) {
  return step->padded_h * step->padded_w * step->group_c;
}

/* The input as (groups, padded_h, padded_w, group_c). */
static inline const uint8_t *bf_padded_input(const bf_step *restrict step,
                                             uint8_t *restrict arena) {
  const uint8_t *x = arena + step->x;
  if (!step->has_copy) {
    return x;
  }
  uint8_t *copies = arena + step->scratch;
  for (size_t group = 0; group < step->groups; group++) {
    bf_copy_group(step, x + group * step->group_c, copies + group * bf_image_bytes(step));
  }
  return copies;
}

/* First byte of the window of output pixel `pixel` (row-major). */
static inline const uint8_t *bf_window(const bf_step *restrict step, const uint8_t *image,
                                       size_t pixel) {
  const size_t row = pixel / step->ow * step->stride_h;
  const size_t column = pixel % step->ow * step->stride_w;
  return image + (row * step->padded_w + column) * step->group_c;
}

#endif
