/* Window sum -> int32; u8 input holds indices, code = x_lo + x_step * index. */
#include "generic/share.h"

/* out[c] += x[c] over one pixel */
static inline void bf_add_pixel(const bf_step *restrict step, const uint8_t *restrict arena,
                                size_t at, int32_t *restrict out) {
  const int32_t *wide = (const int32_t *)(const void *)(arena + step->x) + at;
  const uint8_t *indices = arena + step->x + at;
  if (step->x_kind == BF_I32) {
    for (size_t i = 0; i < step->c; i++) {
      out[i] += wide[i];
    }
    return;
  }
  for (size_t i = 0; i < step->c; i++) {
    out[i] += step->x_lo + step->x_step * indices[i];
  }
}

void bf_sumpool_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_sumpool_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  const bf_span pixels = bf_part(step->oh * step->ow, share);
  for (size_t pixel = pixels.begin; pixel < pixels.end; pixel++) {
    int32_t *out = (int32_t *)(void *)(arena + step->out) + pixel * step->c;
    for (size_t i = 0; i < step->c; i++) {
      out[i] = 0;
    }
    for (size_t i = 0; i < step->kernel_h * step->kernel_w; i++) {
      const size_t row = pixel / step->ow * step->stride_h + i / step->kernel_w;
      const size_t column = pixel % step->ow * step->stride_w + i % step->kernel_w;
      bf_add_pixel(step, arena, (row * step->w + column) * step->c, out);
    }
  }
}
