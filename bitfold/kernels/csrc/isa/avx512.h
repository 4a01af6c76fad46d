/* AVX-512 primitives: one zmm holds a block of 16 int32 lanes. */
#ifndef BITFOLD_AVX512_H
#define BITFOLD_AVX512_H

#if defined(BF_EMULATE_AVX512)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wextra"
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop
/* SIMDe 0.7 gives this name the parameters of the masked form. */
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#endif

#include "isa/avx2.h"

/* sum + x. In assembly because gcc 12 copies sums to which intrinsics add in a loop. */
BF_INLINE __m512i bf_add_to(__m512i sum, __m512i x) {
#if defined(BF_EMULATE_AVX512)
  return _mm512_add_epi32(sum, x);
#else
  __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(x));
  return sum;
#endif
}

#endif
