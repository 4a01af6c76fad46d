/* AVX-512 primitives of isa/depthwise_tile.h: 64 channels a register of bytes.
 */
#ifndef BITFOLD_AVX512_DEPTHWISE_H
#define BITFOLD_AVX512_DEPTHWISE_H

#include "isa/avx512.h"

enum { BF_VEC_BYTES = 64 };

typedef __m512i bf_vec;

/* Keeps compilers from loading a value once more for its second use. */
#if defined(BF_EMULATE_AVX512)
#define BF_IN_REGISTER(v)
/* SIMDe 0.7 lacks this one. */
#define _mm512_cmpgt_epi16_mask(a, b) ((__mmask32)~simde_mm512_cmple_epi16_mask(a, b))
#else
#define BF_IN_REGISTER(v) __asm__("" : "+v"(v));
#endif

BF_INLINE bf_vec bf_vec_zero(void) { return _mm512_setzero_si512(); }

BF_INLINE bf_vec bf_vec_load(const void *p) {
  bf_vec value = _mm512_loadu_si512(p);
  BF_IN_REGISTER(value)
  return value;
}

BF_INLINE void bf_vec_store(void *p, bf_vec v) { _mm512_storeu_si512(p, v); }

/* Bytes of a and b in turn, from the low or the high half of every 128 bits. */
BF_INLINE bf_vec bf_low_bytes(bf_vec a, bf_vec b) { return _mm512_unpacklo_epi8(a, b); }

BF_INLINE bf_vec bf_high_bytes(bf_vec a, bf_vec b) { return _mm512_unpackhi_epi8(a, b); }

/* sum + a dot product of u8 and s8 pairs in 16 bits */
BF_INLINE bf_vec bf_add_dot8(bf_vec sum, bf_vec x, bf_vec w) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(x, w));
}

/* sum + a dot product of int16 pairs in 32 bits */
BF_INLINE bf_vec bf_add_dot16(bf_vec sum, bf_vec x, bf_vec w) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
}

/* count + (value > bound), int16 lanes */
BF_INLINE bf_vec bf_count_above(bf_vec count, bf_vec value, bf_vec bound) {
  const __mmask32 above = _mm512_cmpgt_epi16_mask(value, bound);
  return _mm512_mask_add_epi16(count, above, count, _mm512_set1_epi16(1));
}

/* Words 0 … 255 as bytes, in the order of the bytes that they came from. */
BF_INLINE bf_vec bf_pack_bytes(bf_vec low, bf_vec high) { return _mm512_packus_epi16(low, high); }

#include "isa/depthwise_tile.h"

#endif
