/* AVX-512 primitives: one zmm holds a block of 16 int32 lanes. */
#ifndef BITFOLD_AVX512_H
#define BITFOLD_AVX512_H

#if defined(BF_EMULATE_AVX512)
#include <simde/x86/avx512.h>
#else
#include <immintrin.h>
#endif
#include <string.h>

#include "generic/epilogue.h"

#define BF_INLINE static inline __attribute__((always_inline))

BF_INLINE __m512i bf_load16(const int32_t *p) { return _mm512_loadu_si512((const void *)p); }

/* The epilogue through memory; vector forms exist for the frequent kinds. */
BF_INLINE void bf_finish_any(const bf_step *step, uint8_t *arena, __m512i acc, size_t lane,
                             size_t count, size_t at) {
  int32_t block[BF_LANES];
  _mm512_storeu_si512((void *)block, acc);
  bf_finish(step, arena, block, lane, count, at);
}

#endif
