/* What this core can do at most, in registers: the yardstick of `bitfold bench`. */
#include "bitfold_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Independent accumulators hide the latency of every instruction below. */
enum { CHAIN = 16, TILE = 16, AVX2_MACS = 8 * 32, VNNI256_MACS = 12 * 32, VNNI512_MACS = 12 * 64 };

/* A chain of additions that depend on each other: one cycle each. 0 where none is written down. */
static uint64_t cycles(size_t rounds) {
#if defined(__x86_64__)
#define ADD "add %1, %0\n"
#elif defined(__aarch64__)
#define ADD "add %0, %0, %1\n"
#endif
#if defined(ADD)
  uint64_t sum = 1;
  for (size_t i = 0; i < rounds; i++) {
    __asm__ volatile(ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD
                     : "+r"(sum)
                     : "r"(rounds)
                     : "cc");
  }
  return rounds * CHAIN;
#else
  return 0 * rounds;
#endif
}

static uint64_t portable_macs(size_t rounds) {
  static uint8_t x[TILE][TILE];
  static int8_t w[TILE][TILE];
  int32_t sums[TILE] = {0};
  for (size_t i = 0; i < rounds; i++) {
    for (size_t j = 0; j < TILE; j++) {
      for (size_t lane = 0; lane < TILE; lane++) {
        sums[lane] += x[j][lane] * w[j][lane];
      }
    }
    __asm__ volatile("" : : "r"(sums), "r"(x), "r"(w) : "memory");
  }
  return rounds * TILE * TILE;
}

#if defined(__x86_64__)
#define LOOP(body) "1:\n" body "dec %0\njnz 1b\nvzeroupper\n"
#define PAIR(t, a)                     \
  "vpmaddubsw %%ymm0, %%ymm1, %%ymm" t \
  "\n"                                 \
  "vpaddw %%ymm" t ", %%ymm" a ", %%ymm" a "\n"
#define DOT(v, r, a) v "vpdpbusd %%" r "0, %%" r "1, %%" r a "\n"
#define DOTS(v, r) \
  DOT(v, r, "4")   \
  DOT(v, r, "5")   \
  DOT(v, r, "6")   \
  DOT(v, r, "7")   \
  DOT(v, r, "8")   \
  DOT(v, r, "9")   \
  DOT(v, r, "10") DOT(v, r, "11") DOT(v, r, "12") DOT(v, r, "13") DOT(v, r, "14") DOT(v, r, "15")
#define RUN(body)                                                                                  \
  __asm__ volatile(LOOP(body)                                                                      \
                   : "+r"(rounds)                                                                  \
                   :                                                                               \
                   : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                     "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

static int has_avxvnni(void) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) &&
         (eax >> 4 & 1);
}

static uint64_t avx2_macs(size_t rounds) {
  const uint64_t macs = rounds * AVX2_MACS;
  RUN(PAIR("2", "6") PAIR("3", "7") PAIR("4", "8") PAIR("5", "9") PAIR("2", "10") PAIR("3", "11")
          PAIR("4", "12") PAIR("5", "13"));
  return macs;
}

static uint64_t avxvnni_macs(size_t rounds) {
  const uint64_t macs = rounds * VNNI256_MACS;
  RUN(DOTS("%{vex%} ", "ymm"));
  return macs;
}

static uint64_t avx512vnni_macs(size_t rounds) {
  const uint64_t macs = rounds * VNNI512_MACS;
  RUN(DOTS("", "zmm"));
  return macs;
}
#endif

uint64_t bf_peak(size_t kind, size_t rounds) {
  if (!rounds) {
    return 0;
  }
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  switch (kind) {
  case BF_PEAK_CYCLES:
    return cycles(rounds);
  case BF_PEAK_PORTABLE:
    return portable_macs(rounds);
#if defined(__x86_64__)
  case BF_PEAK_AVX2:
    return __builtin_cpu_supports("avx2") ? avx2_macs(rounds) : 0;
  case BF_PEAK_AVXVNNI:
    return has_avxvnni() ? avxvnni_macs(rounds) : 0;
  case BF_PEAK_AVX512VNNI:
    return __builtin_cpu_supports("avx512vnni") ? avx512vnni_macs(rounds) : 0;
#endif
  default:
    return 0;
  }
}
