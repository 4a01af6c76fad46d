/* The loops around a depthwise tile: every output channel reads the input
 * channel of its number.
 *
 * No image is copied. A window is a list of pointers, one a tap, in scratch;
 * taps outside the input point into a row of fill behind them. Pixels whose
 * windows lie side by side share one list.
 */
#ifndef BITFOLD_CONV2D_DEPTHWISE_H
#define BITFOLD_CONV2D_DEPTHWISE_H

#include <string.h>

#include "generic/epilogue.h"
#include "generic/share.h"

/* Output pixels next to each other in one row, all channels. */
typedef struct bf_run {
  const uint8_t **taps; /* (2 * num_pairs): of the first pixel; a last odd tap
                           stands there twice */
  size_t num_pairs;
  size_t pitch; /* bytes from one pixel's tap to the next one's */
  size_t num_pixels;
  size_t at; /* output element of the first pixel */
} bf_run;

typedef void (*bf_run_kernel)(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_run *restrict run);

/* The input row that tap row `i` of output row `row` reads; the row of fill
 * outside the input. */
static inline const uint8_t *bf_tap_row(const bf_step *restrict step, const uint8_t *x,
                                        const uint8_t *fill, size_t row, size_t i) {
  const size_t y = row * step->stride_h + i; /* counted from the padded edge */
  const int inside = y >= step->top && y - step->top < step->h;
  return inside ? x + (y - step->top) * step->w * step->c : fill;
}

/* The taps of output pixel (row, column). */
static inline void bf_list_taps(const bf_step *restrict step, const uint8_t *x, const uint8_t *fill,
                                size_t row, size_t column, const bf_run *restrict run) {
  const size_t first = column * step->stride_w;
  const uint8_t **tap = run->taps;
  for (size_t i = 0; i < step->kernel_h; i++) {
    const uint8_t *line = bf_tap_row(step, x, fill, row, i);
    for (size_t j = first; j < first + step->kernel_w; j++) {
      const int inside = j >= step->left && j - step->left < step->w;
      *tap++ = inside ? line + (j - step->left) * step->c : fill;
    }
  }
  *tap = tap[-1];
}

/* The columns whose windows lie between the left and the right edge of the
 * input. */
static inline bf_span bf_inner_columns(const bf_step *restrict step) {
  const size_t begin = (step->left + step->stride_w - 1) / step->stride_w;
  const size_t reach = step->w + step->left;
  size_t end = reach < step->kernel_w ? 0 : (reach - step->kernel_w) / step->stride_w + 1;
  end = end < step->ow ? end : step->ow;
  return begin < end ? (bf_span){begin, end} : (bf_span){0, 0};
}

static inline __attribute__((always_inline)) void bf_convolve_channels(
    const bf_step *restrict step, uint8_t *restrict arena, const bf_share *restrict share,
    const bf_run_kernel kernel) {
  const size_t num_pairs = (step->kernel_h * step->kernel_w + 1) / 2;
  uint8_t *scratch = bf_scratch(step, arena, share);
  uint8_t *fill = scratch + (2 * num_pairs + 1) * sizeof(uint8_t *);
  const bf_span rows = bf_part(step->oh, share), inner = bf_inner_columns(step);
  bf_run run = {.taps = (const uint8_t **)(void *)scratch,
                .num_pairs = num_pairs,
                .pitch = step->stride_w * step->c};
  if (step->padded_h > step->h || step->padded_w > step->w) {
    memset(fill, (int)step->fill, step->w * step->c);
  }
  for (size_t row = rows.begin; row < rows.end; row++) {
    for (size_t column = 0; column < step->ow; column += run.num_pixels) {
      run.num_pixels = column == inner.begin && inner.end ? inner.end - inner.begin : 1;
      run.at = (row * step->ow + column) * step->o;
      bf_list_taps(step, arena + step->x, fill, row, column, &run);
      kernel(step, arena, &run);
    }
  }
}

#endif
