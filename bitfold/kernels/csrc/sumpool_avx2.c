/* Window sum -> int32, 16 channels at a time; u8 input holds indices, code = x_lo + x_step * index.
 */
#include "generic/share.h"
#include "isa/avx2.h"

/* Sixteen elements as int32. */
BF_INLINE bf_pair bf_load_elements(const uint8_t *p, const size_t is_wide) {
  if (is_wide) {
    return bf_load16((const int32_t *)(const void *)p);
  }
  const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
  return (bf_pair){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}

/* Sum of the window's elements at its first byte `x`. */
BF_INLINE bf_pair bf_sum_window(const bf_step *step, const uint8_t *x, const size_t is_wide) {
  const size_t pixel_bytes = step->c * (is_wide ? 4 : 1);
  bf_pair sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t i = 0; i < step->kernel_h; i++) {
    const uint8_t *row = x + i * step->w * pixel_bytes;
    for (size_t j = 0; j < step->kernel_w; j++) {
      const bf_pair value = bf_load_elements(row + j * pixel_bytes, is_wide);
      sum.lo = _mm256_add_epi32(sum.lo, value.lo);
      sum.hi = _mm256_add_epi32(sum.hi, value.hi);
    }
  }
  return sum;
}

/* num_elements * x_lo + x_step * sum */
BF_INLINE bf_pair bf_sum_codes(const bf_step *step, bf_pair sum) {
  const uint32_t size = (uint32_t)(step->kernel_h * step->kernel_w);
  const __m256i lo = _mm256_set1_epi32((int)((uint32_t)step->x_lo * size));
  const __m256i x_step = _mm256_set1_epi32(step->x_step);
  return (bf_pair){_mm256_add_epi32(_mm256_mullo_epi32(sum.lo, x_step), lo),
                   _mm256_add_epi32(_mm256_mullo_epi32(sum.hi, x_step), lo)};
}

void bf_sumpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_sumpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  const size_t num_blocks = (step->c + BF_LANES - 1) / BF_LANES;
  const size_t is_wide = step->x_kind == BF_I32, element = is_wide ? 4 : 1;
  const bf_span part = bf_part(step->oh * step->ow * num_blocks, share);
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  for (size_t i = part.begin; i < part.end; i++) {
    const size_t pixel = i / num_blocks, channel = i % num_blocks * BF_LANES;
    const size_t row = pixel / step->ow * step->stride_h;
    const size_t column = pixel % step->ow * step->stride_w;
    const size_t at = (row * step->w + column) * step->c + channel, left = step->c - channel;
    const uint8_t *x = arena + step->x + at * element;
    const bf_pair sum =
        is_wide ? bf_sum_window(step, x, 1) : bf_sum_codes(step, bf_sum_window(step, x, 0));
    bf_store_wide(sum, left < BF_LANES ? left : BF_LANES, out + pixel * step->c + channel);
  }
}
