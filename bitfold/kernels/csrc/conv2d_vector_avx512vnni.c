/* One output pixel from the whole input: weights of 2 or 4 bits stay packed; vpdpbusd, any width.
 */
#include "generic/conv2d_vector.h"
#include "isa/avx512.h"

/* One pixel of at most 16 lanes. */
BF_INLINE void bf_finish_lanes(const bf_step *step, uint8_t *arena, const int32_t *acc, size_t lane,
                               size_t count) {
  const bf_rows rows = {
      .acc = acc, .stride = BF_LANES, .num_pixels = 1, .lane = lane, .count = count, .at = lane};
  bf_finish_rows(step, arena, &rows);
}

BF_INLINE __m512i bf_broadcast_word(const uint8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

BF_INLINE __m512i bf_load_codes(const int8_t *p) { return _mm512_loadu_si512((const void *)p); }

/* 32 channels, even and odd steps of the input in sums of their own. */
BF_INLINE void bf_dot_bytes(const bf_vector *constants, const uint8_t *restrict x,
                            const int8_t *restrict panel, __m512i *restrict sums) {
  __m512i lo = _mm512_setzero_si512(), hi = lo, lo_odd = lo, hi_odd = lo;
  size_t i = 0;
  for (; i + 2 <= constants->num_groups; i += 2) {
    const __m512i even = bf_broadcast_word(x + 4 * i), odd = bf_broadcast_word(x + 4 * i + 4);
    lo = _mm512_dpbusd_epi32(lo, even, bf_load_codes(panel));
    hi = _mm512_dpbusd_epi32(hi, even, bf_load_codes(panel + 64));
    lo_odd = _mm512_dpbusd_epi32(lo_odd, odd, bf_load_codes(panel + 128));
    hi_odd = _mm512_dpbusd_epi32(hi_odd, odd, bf_load_codes(panel + 192));
    panel += 2 * BF_GROUP_BYTES;
  }
  if (i < constants->num_groups) {
    const __m512i even = bf_broadcast_word(x + 4 * i);
    lo = _mm512_dpbusd_epi32(lo, even, bf_load_codes(panel));
    hi = _mm512_dpbusd_epi32(hi, even, bf_load_codes(panel + 64));
  }
  sums[0] = _mm512_add_epi32(lo, lo_odd);
  sums[1] = _mm512_add_epi32(hi, hi_odd);
}

BF_INLINE void bf_dot_indices(const bf_vector *constants, const uint8_t *restrict x,
                              const int8_t *restrict panel, __m512i *restrict sums) {
  const __m512i mask = _mm512_set1_epi8((char)((1 << constants->bits) - 1));
  const __m128i bits = _mm_cvtsi32_si128((int)constants->bits);
  __m512i lo = _mm512_setzero_si512(), hi = lo;
  for (size_t i = 0; i < constants->num_groups; i++) {
    __m512i w_lo = bf_load_codes(panel), w_hi = bf_load_codes(panel + 64);
    for (size_t j = 0; j < 8 / constants->bits; j++) {
      const __m512i quad = bf_broadcast_word(x);
      lo = _mm512_dpbusd_epi32(lo, quad, _mm512_and_si512(w_lo, mask));
      hi = _mm512_dpbusd_epi32(hi, quad, _mm512_and_si512(w_hi, mask));
      w_lo = _mm512_srl_epi16(w_lo, bits);
      w_hi = _mm512_srl_epi16(w_hi, bits);
      x += 4;
    }
    panel += BF_GROUP_BYTES;
  }
  sums[0] = lo;
  sums[1] = hi;
}

BF_INLINE void bf_dot_vnni(const bf_step *restrict step, const uint8_t *restrict x,
                           const int8_t *restrict panel, int32_t *restrict dots) {
  const bf_vector *constants = step->extra;
  __m512i sums[2];
  if (constants->bits == 8) {
    bf_dot_bytes(constants, x, panel, sums);
  } else {
    bf_dot_indices(constants, x, panel, sums);
  }
  _mm512_storeu_si512((void *)dots, sums[0]);
  _mm512_storeu_si512((void *)(dots + 16), sums[1]);
}

void bf_conv2d_vector__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share);

void bf_conv2d_vector__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  bf_multiply_panels(step, arena, share, arena + step->x, bf_dot_vnni, bf_finish_lanes);
}
