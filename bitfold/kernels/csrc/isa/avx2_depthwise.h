/* AVX2 primitives of isa/depthwise_tile.h: 32 channels a register of bytes. */
#ifndef BITFOLD_AVX2_DEPTHWISE_H
#define BITFOLD_AVX2_DEPTHWISE_H

#include "isa/avx2.h"

enum { BF_VEC_BYTES = 32 };

typedef __m256i bf_vec;

/* Keeps compilers from loading a value once more for its second use. */
#define BF_IN_REGISTER(v) __asm__("" : "+x"(v));

BF_INLINE bf_vec bf_vec_zero(void) { return _mm256_setzero_si256(); }

BF_INLINE bf_vec bf_vec_load(const void *p) { return _mm256_loadu_si256(p); }

BF_INLINE void bf_vec_store(void *p, bf_vec v) { _mm256_storeu_si256(p, v); }

/* Bytes of a and b in turn, from the low or the high half of every 128
 * bits. */
BF_INLINE bf_vec bf_low_bytes(bf_vec a, bf_vec b) { return _mm256_unpacklo_epi8(a, b); }

BF_INLINE bf_vec bf_high_bytes(bf_vec a, bf_vec b) { return _mm256_unpackhi_epi8(a, b); }

/* sum + a dot product of u8 and s8 pairs in 16 bits */
BF_INLINE bf_vec bf_add_dot8(bf_vec sum, bf_vec x, bf_vec w) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, w));
}

/* sum + a dot product of int16 pairs in 32 bits */
BF_INLINE bf_vec bf_add_dot16(bf_vec sum, bf_vec x, bf_vec w) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
}

/* count + (value > bound), int16 lanes */
BF_INLINE bf_vec bf_count_above(bf_vec count, bf_vec value, bf_vec bound) {
  return _mm256_sub_epi16(count, _mm256_cmpgt_epi16(value, bound));
}

/* Words 0 … 255 as bytes, in the order of the bytes that they came from. */
BF_INLINE bf_vec bf_pack_bytes(bf_vec low, bf_vec high) { return _mm256_packus_epi16(low, high); }

#include "isa/depthwise_tile.h"

#endif
