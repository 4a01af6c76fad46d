/* out[c] (float32) = float32(x[c]) * scale[c] */
#include "bitfold_kernels.h"

void bf_dequantize_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena);

void bf_dequantize_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena) {
  const int32_t *x = (const int32_t *)(const void *)(arena + step->x);
  float *out = (float *)(void *)(arena + step->out);
  for (size_t pixel = 0; pixel < step->h * step->w; pixel++) {
    for (size_t i = 0; i < step->c; i++) {
      out[pixel * step->c + i] = (float)x[pixel * step->c + i] * step->scale[i];
    }
  }
}
