/* Where a convolution finds its input: a padded copy in scratch, or the input itself. */
#ifndef BITFOLD_GEOMETRY_H
#define BITFOLD_GEOMETRY_H

#include <string.h>

#include "generic/share.h"

/* Copies row `i` of the channels at `x` between its two borders. */
static inline void bf_copy_row(const bf_step *restrict step, const uint8_t *restrict x, size_t i,
                               uint8_t *restrict copy) {
  const size_t depth = step->group_c;
  const size_t row_bytes = step->w * depth;
  const size_t left_bytes = step->left * depth;
  const size_t right_bytes = step->padded_w * depth - left_bytes - row_bytes;
  memset(copy, (int)step->fill, left_bytes);
  copy += left_bytes;
  if (depth == step->c) {
    memcpy(copy, x + i * row_bytes, row_bytes);
  } else {
    for (size_t j = 0; j < step->w; j++) {
      memcpy(copy + j * depth, x + (i * step->w + j) * step->c, depth);
    }
  }
  memset(copy + row_bytes, (int)step->fill, right_bytes);
}

/* Rows `rows` of a padded image, of the group_c channels that begin at `x`. */
static inline void bf_copy_group(const bf_step *restrict step, const uint8_t *restrict x,
                                 bf_span rows, uint8_t *restrict copy) {
  const size_t pitch = step->padded_w * step->group_c;
  for (size_t i = rows.begin; i < rows.end; i++) {
    if (i < step->top || i >= step->top + step->h) {
      memset(copy + i * pitch, (int)step->fill, pitch);
    } else {
      bf_copy_row(step, x, i - step->top, copy + i * pitch);
    }
  }
}

static inline size_t bf_image_bytes(const bf_step *restrict step) {
  return step->padded_h * step->padded_w * step->group_c;
}

/* The rows of the padded input that the output rows `rows` read. */
static inline bf_span bf_input_rows(const bf_step *restrict step, bf_span rows) {
  const size_t last = rows.end ? (rows.end - 1) * step->stride_h + step->kernel_h : 0;
  return (bf_span){rows.begin * step->stride_h, rows.begin < rows.end ? last : 0};
}

/* The input as (groups, padded_h, padded_w, group_c); a copy holds what `part` reads, no more. */
static inline const uint8_t *bf_padded_input(const bf_step *restrict step, uint8_t *restrict arena,
                                             const bf_share *restrict share,
                                             const bf_conv_part *restrict part) {
  const uint8_t *x = arena + step->x;
  if (!step->has_copy) {
    return x;
  }
  uint8_t *copies = bf_scratch(step, arena, share);
  const size_t per_group = step->group_lanes / 16;
  const size_t last = part->blocks.end ? (part->blocks.end - 1) / per_group + 1 : 0;
  for (size_t group = part->blocks.begin / per_group; group < last; group++) {
    bf_copy_group(step, x + group * step->group_c, bf_input_rows(step, part->rows),
                  copies + group * bf_image_bytes(step));
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
