/* Window maximum; positions outside the input are left out. u8 or int32. */
#include "generic/share.h"

static inline int32_t bf_element_at(const bf_step *restrict step, const uint8_t *arena, size_t at) {
  if (step->x_kind == BF_I32) {
    return ((const int32_t *)(const void *)(arena + step->x))[at];
  }
  return arena[step->x + at];
}

/* Maximum of the window of output (row, column) in channel `channel`. */
static inline int32_t bf_window_max(const bf_step *restrict step, const uint8_t *arena, size_t row,
                                    size_t column, size_t channel) {
  int32_t best = INT32_MIN;
  for (size_t i = 0; i < step->kernel_h; i++) {
    const size_t y = row * step->stride_h + i; /* counted from the padded edge */
    for (size_t j = 0; j < step->kernel_w; j++) {
      const size_t x = column * step->stride_w + j;
      if (y < step->top || y - step->top >= step->h || x < step->left ||
          x - step->left >= step->w) {
        continue;
      }
      const size_t at = ((y - step->top) * step->w + x - step->left) * step->c + channel;
      const int32_t value = bf_element_at(step, arena, at);
      best = value > best ? value : best;
    }
  }
  return best;
}

void bf_maxpool_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_maxpool_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  const bf_span pixels = bf_part(step->oh * step->ow, share);
  for (size_t at = pixels.begin * step->c; at < pixels.end * step->c; at++) {
    const size_t pixel = at / step->c;
    const int32_t best =
        bf_window_max(step, arena, pixel / step->ow, pixel % step->ow, at % step->c);
    if (step->x_kind == BF_I32) {
      ((int32_t *)(void *)(arena + step->out))[at] = best;
    } else {
      arena[step->out + at] = (uint8_t)best;
    }
  }
}
