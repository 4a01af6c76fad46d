/* AVX-512 VNNI sums of products of transformed tiles: 16 or 32 channels x up to 6 tiles. */
#ifndef BITFOLD_AVX512_WINOGRAD_H
#define BITFOLD_AVX512_WINOGRAD_H

#define BF_VECTOR_BYTES 64
#define BF_FINISH_ROWS bf_finish_wide_rows

#include "isa/avx512_finish.h"
#include "isa/avx2_sums.h"
#include "generic/winograd.h"

#define BF_TILES_1(f) f(0)
#define BF_TILES_2(f) BF_TILES_1(f) f(1)
#define BF_TILES_3(f) BF_TILES_2(f) f(2)
#define BF_TILES_4(f) BF_TILES_3(f) f(3)
#define BF_TILES_5(f) BF_TILES_4(f) f(4)
#define BF_TILES_6(f) BF_TILES_5(f) f(5)

/* One position of a group of tiles. */
typedef struct bf_position {
  const uint8_t *inputs;
  const int8_t *panel, *next_panel; /* of one block and of the one behind it */
  const int32_t *starts, *next_starts;
  int32_t *sums, *next_sums; /* (6, 16) each */
  size_t pitch, num_quads;
} bf_position;

#define BF_ONE_START(i) __m512i sum##i = start;
#define BF_ONE_QUAD(i)                            \
  memcpy(&quad, inputs + i * pitch, sizeof quad); \
  sum##i = _mm512_dpbusd_epi32(sum##i, _mm512_set1_epi32(quad), w);
#define BF_ONE_STORE(i) _mm512_storeu_si512((void *)(position->sums + i * BF_LANES), sum##i);

#define BF_TWO_START(i) __m512i sum##i = start, next##i = next_start;
#define BF_TWO_QUAD(i)                            \
  memcpy(&quad, inputs + i * pitch, sizeof quad); \
  x = _mm512_set1_epi32(quad);                    \
  sum##i = _mm512_dpbusd_epi32(sum##i, x, w);     \
  next##i = _mm512_dpbusd_epi32(next##i, x, next_w);
#define BF_TWO_STORE(i)                                                 \
  _mm512_storeu_si512((void *)(position->sums + i * BF_LANES), sum##i); \
  _mm512_storeu_si512((void *)(position->next_sums + i * BF_LANES), next##i);

/* Six sums, seven loads a quad: for a last block of channels. */
#define BF_DEFINE_ONE(n)                                                                       \
  BF_INLINE void bf_position_one_##n(const bf_position *position) {                            \
    const __m512i start = bf_load_zmm(position->starts);                                       \
    const uint8_t *inputs = position->inputs;                                                  \
    const size_t pitch = position->pitch;                                                      \
    BF_TILES_##n(BF_ONE_START) for (size_t q = 0; q < position->num_quads; q++, inputs += 4) { \
      const __m512i w = bf_load_zmm(position->panel + 64 * q);                                 \
      int32_t quad;                                                                            \
      BF_TILES_##n(BF_ONE_QUAD)                                                                \
    }                                                                                          \
    BF_TILES_##n(BF_ONE_STORE)                                                                 \
  }

/* Twelve sums, eight loads a quad. */
#define BF_DEFINE_TWO(n)                                                                       \
  BF_INLINE void bf_position_two_##n(const bf_position *position) {                            \
    const __m512i start = bf_load_zmm(position->starts);                                       \
    const __m512i next_start = bf_load_zmm(position->next_starts);                             \
    const uint8_t *inputs = position->inputs;                                                  \
    const size_t pitch = position->pitch;                                                      \
    BF_TILES_##n(BF_TWO_START) for (size_t q = 0; q < position->num_quads; q++, inputs += 4) { \
      const __m512i w = bf_load_zmm(position->panel + 64 * q);                                 \
      const __m512i next_w = bf_load_zmm(position->next_panel + 64 * q);                       \
      int32_t quad;                                                                            \
      __m512i x;                                                                               \
      BF_TILES_##n(BF_TWO_QUAD)                                                                \
    }                                                                                          \
    BF_TILES_##n(BF_TWO_STORE)                                                                 \
  }

#define BF_DEFINE_BOTH(n) BF_DEFINE_ONE(n) BF_DEFINE_TWO(n)

BF_DEFINE_BOTH(1)
BF_DEFINE_BOTH(2)
BF_DEFINE_BOTH(3)
BF_DEFINE_BOTH(4)
BF_DEFINE_BOTH(5)
BF_DEFINE_BOTH(6)

typedef void (*bf_position_kernel)(const bf_position *position);

BF_INLINE void bf_multiply_positions(const bf_product *restrict product,
                                     const bf_position_kernel kernel) {
  const bf_winograd *winograd = product->winograd;
  const size_t positions = product->num_positions;
  for (size_t p = 0; p < positions; p++) {
    const int8_t *panel = product->panel + p * winograd->num_quads * 64;
    const int32_t *starts = product->starts + p * BF_LANES;
    int32_t *sums = product->sums + p * BF_GROUP_TILES * BF_LANES;
    const bf_position position = {.inputs = product->inputs + p * BF_GROUP_TILES * winograd->pitch,
                                  .panel = panel,
                                  .next_panel = panel + product->panel_bytes,
                                  .starts = starts,
                                  .next_starts = starts + positions * BF_LANES,
                                  .sums = sums,
                                  .next_sums = sums + positions * BF_GROUP_TILES * BF_LANES,
                                  .pitch = winograd->pitch,
                                  .num_quads = winograd->num_quads};
    kernel(&position);
  }
}

#define BF_DEFINE_MULTIPLY(blocks)                                                     \
  static inline void bf_multiply_##blocks(const bf_product *restrict product) {        \
    static const bf_position_kernel kernels[] = {                                      \
        bf_position_##blocks##_1, bf_position_##blocks##_2, bf_position_##blocks##_3,  \
        bf_position_##blocks##_4, bf_position_##blocks##_5, bf_position_##blocks##_6}; \
    bf_multiply_positions(product, kernels[product->num_tiles - 1]);                   \
  }

BF_DEFINE_MULTIPLY(one)
BF_DEFINE_MULTIPLY(two)

#endif
