/* AVX-512 primitives: one zmm holds a block of 16 int32 lanes; epilogues run on its two halves. */
#ifndef BITFOLD_AVX512_H
#define BITFOLD_AVX512_H

#if defined(BF_EMULATE_AVX512)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wextra"
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop
#endif

#include "isa/avx2.h"

/* The two halves of 16 int32. */
BF_INLINE bf_pair bf_halves(__m512i x) {
  return (bf_pair){_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)};
}

#endif
