/* AVX2 sums of products of transformed tiles: 16 channels x up to 6 tiles. */
#ifndef BITFOLD_AVX2_WINOGRAD_H
#define BITFOLD_AVX2_WINOGRAD_H

#define BF_VECTOR_BYTES 32

#include "isa/avx2.h"
#include "isa/avx2_sums.h"
#include "generic/winograd.h"

#define BF_TILES_1(f) f(0)
#define BF_TILES_2(f) BF_TILES_1(f) f(1)
#define BF_TILES_3(f) BF_TILES_2(f) f(2)
#define BF_TILES_4(f) BF_TILES_3(f) f(3)
#define BF_TILES_5(f) BF_TILES_4(f) f(4)
#define BF_TILES_6(f) BF_TILES_5(f) f(5)

typedef struct bf_unaligned_quad {
  uint8_t bytes[4];
} bf_unaligned_quad;

#define BF_TILE_ZERO(i) lo##i = zero, hi##i = zero;

#define BF_TILE_DECLARE(i) __m256i lo##i, hi##i;

/* lo, hi += products of the quad at `p` with `w_lo` and `w_hi`, in 16 bits. In assembly because gcc
 * spills some of the twelve sums of a group otherwise.
 */
BF_INLINE void bf_add_products(const uint8_t *p, __m256i w_lo, __m256i w_hi, __m256i *restrict lo,
                               __m256i *restrict hi) {
  __m256i x, products;
  __asm__(
      "vpbroadcastd %[quad], %[x]\n\t"
      "vpmaddubsw %[w_lo], %[x], %[products]\n\t"
      "vpmaddubsw %[w_hi], %[x], %[x]\n\t"
      "vpaddw %[products], %[lo], %[lo]\n\t"
      "vpaddw %[x], %[hi], %[hi]"
      : [lo] "+x"(*lo), [hi] "+x"(*hi), [x] "=&x"(x), [products] "=&x"(products)
      :
      [quad] "m"(*(const bf_unaligned_quad *)(const void *)p), [w_lo] "x"(w_lo), [w_hi] "x"(w_hi));
}

#define BF_TILE_QUAD(i) bf_add_products(inputs + i * pitch, w_lo, w_hi, &lo##i, &hi##i);

#define BF_TILE_FLUSH(i)                                                                \
  at = from + i * step;                                                                 \
  sum = (bf_pair){_mm256_add_epi32(bf_load8(at), _mm256_madd_epi16(lo##i, scale)),      \
                  _mm256_add_epi32(bf_load8(at + 8), _mm256_madd_epi16(hi##i, scale))}; \
  bf_store_wide(sum, BF_LANES, sums + i * BF_LANES);

/* Products are added in 16 bits between flushes, then scaled and added in 32 bits. */
#define BF_DEFINE_MULTIPLY(n)                                                                 \
  static __attribute__((noinline)) void bf_multiply_##n(const bf_product *restrict product) { \
    const bf_winograd *winograd = product->winograd;                                          \
    const __m256i zero = _mm256_setzero_si256();                                              \
    const size_t pitch = winograd->pitch;                                                     \
    const __m256i *panel = (const __m256i *)(const void *)product->panel;                     \
    int32_t *sums = product->sums;                                                            \
    for (size_t p = 0; p < product->num_positions; p++) {                                     \
      const __m256i scale = _mm256_set1_epi16((short)winograd->scales[p]);                    \
      const uint8_t *inputs = product->inputs + p * BF_GROUP_TILES * pitch;                   \
      const int32_t *from = product->starts + p * BF_LANES;                                   \
      size_t left = winograd->num_quads, step = 0;                                            \
      while (left) {                                                                          \
        size_t run = left < winograd->flushes[p] ? left : winograd->flushes[p];               \
        left -= run;                                                                          \
        BF_TILES_##n(BF_TILE_DECLARE);                                                        \
        BF_TILES_##n(BF_TILE_ZERO);                                                           \
        do {                                                                                  \
          const __m256i w_lo = _mm256_loadu_si256(panel);                                     \
          const __m256i w_hi = _mm256_loadu_si256(panel + 1);                                 \
          BF_TILES_##n(BF_TILE_QUAD);                                                         \
          panel += 2;                                                                         \
          inputs += 4;                                                                        \
        } while (--run);                                                                      \
        const int32_t *at;                                                                    \
        bf_pair sum;                                                                          \
        BF_TILES_##n(BF_TILE_FLUSH);                                                          \
        from = sums;                                                                          \
        step = BF_LANES;                                                                      \
      }                                                                                       \
      sums += BF_GROUP_TILES * BF_LANES;                                                      \
    }                                                                                         \
  }

BF_DEFINE_MULTIPLY(1)
BF_DEFINE_MULTIPLY(2)
BF_DEFINE_MULTIPLY(3)
BF_DEFINE_MULTIPLY(4)
BF_DEFINE_MULTIPLY(5)
BF_DEFINE_MULTIPLY(6)

static inline void bf_multiply_short(const bf_product *restrict product) {
  static const bf_multiplier by_count[] = {bf_multiply_1, bf_multiply_2, bf_multiply_3,
                                           bf_multiply_4, bf_multiply_5, bf_multiply_6};
  by_count[product->num_tiles - 1](product);
}

#endif
