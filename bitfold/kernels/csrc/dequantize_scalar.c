/* out[c] (float32) = float32(x[c]) * scale[c] */
#include "generic/share.h"

void bf_dequantize_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share);

void bf_dequantize_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share) {
  const int32_t *x = (const int32_t *)(const void *)(arena + step->x);
  float *out = (float *)(void *)(arena + step->out);
  const bf_span pixels = bf_part(step->h * step->w, share);
  for (size_t pixel = pixels.begin; pixel < pixels.end; pixel++) {
    for (size_t i = 0; i < step->c; i++) {
      out[pixel * step->c + i] = (float)x[pixel * step->c + i] * step->scale[i];
    }
  }
}
