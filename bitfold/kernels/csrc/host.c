/* Features of the host, asked by cpuid. */
#include "bitfold_kernels.h"

static const char *const names[] = {
    "avx2",     "fma",        "popcnt",     "avx512f",         "avx512bw",
    "avx512vl", "avx512vnni", "avx512vbmi", "avx512vpopcntdq", "avx512dq"};

const char *bf_feature_name(size_t bit) {
  return bit < sizeof names / sizeof names[0] ? names[bit] : NULL;
}

uint64_t bf_host_isa(void) {
  uint64_t bits = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bits |= (uint64_t)(__builtin_cpu_supports("avx2") != 0) << 0;
  bits |= (uint64_t)(__builtin_cpu_supports("fma") != 0) << 1;
  bits |= (uint64_t)(__builtin_cpu_supports("popcnt") != 0) << 2;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512f") != 0) << 3;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512bw") != 0) << 4;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512vl") != 0) << 5;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512vnni") != 0) << 6;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512vbmi") != 0) << 7;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512vpopcntdq") != 0) << 8;
  bits |= (uint64_t)(__builtin_cpu_supports("avx512dq") != 0) << 9;
#endif
#if defined(BF_EMULATE_AVX512)
  bits |= (uint64_t)0x3f8;
#endif
  return bits;
}
