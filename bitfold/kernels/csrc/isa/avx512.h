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
#endif

#include "isa/avx2.h"

#endif
