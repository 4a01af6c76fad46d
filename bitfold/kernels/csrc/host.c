/* Features of the host, asked by cpuid, or of the system on ARM. */
#include "bitfold_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const char *const names[] = {
    "avx2",     "fma",        "popcnt",     "avx512f",         "avx512bw",
    "avx512vl", "avx512vnni", "avx512vbmi", "avx512vpopcntdq", "avx512dq",
    "avxvnni",  "asimd",      "asimddp"};

const char *bf_feature_name(size_t bit) {
  return bit < sizeof names / sizeof names[0] ? names[bit] : NULL;
}

#if defined(__x86_64__)
/* Leaf 7.1, bit 4 of eax. Compilers learned its name late. */
static uint64_t has_avxvnni(void) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) ? eax >> 4 & 1 : 0;
}
#endif

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
  bits |= (bits & has_avxvnni()) << 10; /* bit 0: the system keeps 256-bit registers */
#elif defined(__aarch64__)
  bits |= (uint64_t)1 << 11; /* every aarch64 CPU has it */
#if defined(__linux__)
  bits |= (uint64_t)((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) << 12;
#endif
#endif
#if defined(BF_EMULATE_AVX512)
  bits |= (uint64_t)0x7f8;
#endif
  return bits;
}
