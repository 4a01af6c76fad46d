/* AVX2 primitives: epilogues on 8 int32 lanes a register, two registers a block of 16 lanes. */
#ifndef BITFOLD_AVX2_H
#define BITFOLD_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "generic/epilogue.h"

#define BF_INLINE static inline __attribute__((always_inline))
/* For what is long and called from several places of a file: all epilogues, say. */
#define BF_ONCE static __attribute__((noinline))

/* One block of 16 lanes. */
typedef struct bf_pair {
  __m256i lo, hi;
} bf_pair;

BF_INLINE __m256i bf_load8(const int32_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE __m256i bf_load4(const int64_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE bf_pair bf_load16(const int32_t *p) { return (bf_pair){bf_load8(p), bf_load8(p + 8)}; }

/* Stores the first `count` of 16 int32. */
BF_INLINE void bf_store_wide(bf_pair value, size_t count, int32_t *out) {
  if (count == BF_LANES) {
    _mm256_storeu_si256((__m256i *)(void *)out, value.lo);
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), value.hi);
    return;
  }
  if (count == BF_LANES / 2) { /* channels come in eights more often than in odd numbers */
    _mm256_storeu_si256((__m256i *)(void *)out, value.lo);
    return;
  }
  int32_t block[BF_LANES];
  _mm256_storeu_si256((__m256i *)(void *)block, value.lo);
  _mm256_storeu_si256((__m256i *)(void *)(block + 8), value.hi);
  memcpy(out, block, count * sizeof(int32_t));
}

/* Stores the first `count` of 16 values 0 … 255 as bytes. */
BF_INLINE void bf_store_bytes(bf_pair value, size_t count, uint8_t *out) {
  const __m256i words = _mm256_packs_epi32(value.lo, value.hi); /* quarters 0 2 1 3 */
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  if (count == BF_LANES) {
    _mm_storeu_si128((__m128i *)(void *)out, bytes);
    return;
  }
  if (count == BF_LANES / 2) {
    _mm_storel_epi64((__m128i *)(void *)out, bytes);
    return;
  }
  uint8_t block[BF_LANES];
  _mm_storeu_si128((__m128i *)(void *)block, bytes);
  memcpy(out, block, count);
}

/* The 64-bit sums even and odd lanes (low halves valid) joined into 8 int32. */
BF_INLINE __m256i bf_join(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

/* Low words of eight int64 constants. */
BF_INLINE __m256i bf_low_words(const int64_t *p) {
  const __m256 halves = _mm256_shuffle_ps(_mm256_castsi256_ps(bf_load4(p)),
                                          _mm256_castsi256_ps(bf_load4(p + 4)), 0x88);
  return _mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8);
}

/* Eight int64 constants as those of even and of odd lanes. */
typedef struct bf_quads {
  __m256i even, odd;
} bf_quads;

BF_INLINE bf_quads bf_load_quads(const int64_t *p) {
  const __m256i lower = _mm256_permute2x128_si256(bf_load4(p), bf_load4(p + 4), 0x20);
  const __m256i upper = _mm256_permute2x128_si256(bf_load4(p), bf_load4(p + 4), 0x31);
  return (bf_quads){_mm256_unpacklo_epi64(lower, upper), _mm256_unpackhi_epi64(lower, upper)};
}

/* x * slope + intercept in 64 bits; the odd lanes of `slope` are used for the odd lanes of x. */
BF_INLINE bf_quads bf_line_sums(__m256i x, __m256i slope, bf_quads intercept) {
  const __m256i even = _mm256_mul_epi32(x, slope);
  const __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(slope, 32));
  return (bf_quads){_mm256_add_epi64(even, intercept.even), _mm256_add_epi64(odd, intercept.odd)};
}

/* Constants of a line on 8 lanes; loaded once for all pixels of a tile. */
typedef struct bf_line {
  __m256i low, high, slope, shift, intercept32;
  bf_quads intercept;
} bf_line;

BF_INLINE bf_line bf_load_line(const bf_epilogue *e, size_t lane) {
  return (bf_line){.low = bf_load8(e->low + lane),
                   .high = bf_load8(e->high + lane),
                   .slope = bf_load8(e->slope + lane),
                   .shift = bf_load8(e->index_shift + lane),
                   .intercept32 = bf_low_words(e->intercept + lane),
                   .intercept = bf_load_quads(e->intercept + lane)};
}

/* (clamp(acc) * slope + intercept) >> shift in 32 bits: the sum wraps into 0 … 2^31 - 1. */
BF_INLINE __m256i bf_line32(const bf_line *line, __m256i acc) {
  const __m256i x = _mm256_min_epi32(_mm256_max_epi32(acc, line->low), line->high);
  const __m256i product = _mm256_mullo_epi32(x, line->slope);
  return _mm256_srlv_epi32(_mm256_add_epi32(product, line->intercept32), line->shift);
}

/* The same in 64 bits, for lines that need a finer slope. */
BF_INLINE __m256i bf_line64(const bf_line *line, __m256i acc) {
  const __m256i x = _mm256_min_epi32(_mm256_max_epi32(acc, line->low), line->high);
  const bf_quads sums = bf_line_sums(x, line->slope, line->intercept);
  const __m256i even_shift = _mm256_and_si256(line->shift, _mm256_set1_epi64x(0xffffffff));
  return bf_join(_mm256_srlv_epi64(sums.even, even_shift),
                 _mm256_srlv_epi64(sums.odd, _mm256_srli_epi64(line->shift, 32)));
}

/* num_thresholds - #{j : table[j] > sign * acc} */
BF_INLINE bf_pair bf_compare16(const bf_epilogue *e, bf_pair acc, size_t lane) {
  const int32_t *table = e->table + lane * e->num_thresholds;
  const __m256i lo = _mm256_sign_epi32(acc.lo, bf_load8(e->sign + lane));
  const __m256i hi = _mm256_sign_epi32(acc.hi, bf_load8(e->sign + lane + 8));
  bf_pair index = {_mm256_set1_epi32((int)e->num_thresholds),
                   _mm256_set1_epi32((int)e->num_thresholds)};
  for (size_t j = 0; j < e->num_thresholds; j++) {
    index.lo = _mm256_add_epi32(index.lo, _mm256_cmpgt_epi32(bf_load8(table + j * 16), lo));
    index.hi = _mm256_add_epi32(index.hi, _mm256_cmpgt_epi32(bf_load8(table + j * 16 + 8), hi));
  }
  return index;
}

/* Accumulators of one block of 16 lanes for several pixels, `stride` int32 apart. */
typedef struct bf_rows {
  const int32_t *acc;
  size_t stride, num_pixels;
  size_t lane, count; /* first lane; lanes that exist */
  size_t at;          /* output element of the first pixel */
} bf_rows;

BF_INLINE void bf_finish_compare(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  uint8_t *out = arena + step->out + rows->at;
  for (size_t i = 0; i < rows->num_pixels; i++) {
    const bf_pair acc = bf_load16(rows->acc + i * rows->stride);
    bf_store_bytes(bf_compare16(e, acc, rows->lane), rows->count, out + i * step->o);
  }
}

enum { BF_FEW_THRESHOLDS = 3 };

/* The same for 2 or 3 thresholds, held in registers: for all the compiler knows, what is written
 * might be the table.
 */
BF_INLINE void bf_finish_few(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                             const size_t num_thresholds) {
  const bf_epilogue *e = &step->epilogue;
  const int32_t *table = e->table + rows->lane * num_thresholds;
  const bf_pair sign = bf_load16(e->sign + rows->lane);
  const __m256i most = _mm256_set1_epi32((int)num_thresholds);
  const size_t num_pixels = rows->num_pixels, count = rows->count, pitch = step->o;
  const size_t stride = rows->stride;
  const int32_t *acc = rows->acc;
  uint8_t *out = arena + step->out + rows->at;
  bf_pair bounds[BF_FEW_THRESHOLDS];
  for (size_t j = 0; j < num_thresholds; j++) {
    bounds[j] = bf_load16(table + j * BF_LANES);
  }
  for (size_t i = 0; i < num_pixels; i++) {
    const bf_pair x = bf_load16(acc + i * stride);
    const __m256i lo = _mm256_sign_epi32(x.lo, sign.lo), hi = _mm256_sign_epi32(x.hi, sign.hi);
    bf_pair index = {most, most};
    for (size_t j = 0; j < num_thresholds; j++) {
      index.lo = _mm256_add_epi32(index.lo, _mm256_cmpgt_epi32(bounds[j].lo, lo));
      index.hi = _mm256_add_epi32(index.hi, _mm256_cmpgt_epi32(bounds[j].hi, hi));
    }
    bf_store_bytes(index, count, out + i * pitch);
  }
}

typedef __m256i (*bf_line_form)(const bf_line *line, __m256i acc);

BF_INLINE void bf_finish_line(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                              const bf_line_form form) {
  const bf_line lo = bf_load_line(&step->epilogue, rows->lane);
  const bf_line hi = bf_load_line(&step->epilogue, rows->lane + 8);
  const size_t num_pixels = rows->num_pixels, count = rows->count, pitch = step->o;
  const int32_t *acc = rows->acc;
  uint8_t *out = arena + step->out + rows->at;
  for (size_t i = 0; i < num_pixels; i++) {
    const bf_pair x = bf_load16(acc + i * rows->stride);
    const bf_pair index = {form(&lo, x.lo), form(&hi, x.hi)};
    bf_store_bytes(index, count, out + i * pitch);
  }
}

/* Constants of a fixed-point update on 8 lanes. */
typedef struct bf_rule {
  __m256i multiplier, offset32;
  bf_quads offset;
} bf_rule;

BF_INLINE bf_rule bf_load_rule(const bf_epilogue *e, size_t lane) {
  return (bf_rule){.multiplier = bf_low_words(e->multiplier + lane),
                   .offset32 = bf_low_words(e->offset + lane),
                   .offset = bf_load_quads(e->offset + lane)};
}

/* Floor shift of int64 whose result fits int32; the low words are valid. */
BF_INLINE __m256i bf_shift64(__m256i value, size_t shift) {
  if (shift <= 32) {
    return _mm256_srl_epi64(value, _mm_cvtsi32_si128((int)shift));
  }
  return _mm256_sra_epi32(_mm256_srli_epi64(value, 32), _mm_cvtsi32_si128((int)shift - 32));
}

typedef __m256i (*bf_wide_update)(const bf_rule *rule, __m256i acc, size_t shift);

BF_INLINE __m256i bf_wide32(const bf_rule *rule, __m256i acc, size_t shift) {
  const __m256i product = _mm256_mullo_epi32(acc, rule->multiplier);
  return _mm256_sra_epi32(_mm256_add_epi32(product, rule->offset32), _mm_cvtsi32_si128((int)shift));
}

BF_INLINE __m256i bf_wide64(const bf_rule *rule, __m256i acc, size_t shift) {
  const bf_quads sums = bf_line_sums(acc, rule->multiplier, rule->offset);
  return bf_join(bf_shift64(sums.even, shift), bf_shift64(sums.odd, shift));
}

/* Constants of the bend at 0 on 8 lanes, which only some updates have. */
typedef struct bf_bend {
  __m256i multiplier;
  bf_quads half;
} bf_bend;

BF_INLINE bf_bend bf_load_bend(const bf_epilogue *e, size_t lane) {
  const __m256i half = _mm256_set1_epi64x(bf_round_bits(e->negative_shift));
  return (bf_bend){bf_low_words(e->negative_multiplier + lane), {half, half}};
}

/* y, or (multiplier * y + half) >> shift where y < 0 */
BF_INLINE __m256i bf_bent(const bf_bend *bend, __m256i y, size_t shift) {
  const bf_quads sums = bf_line_sums(y, bend->multiplier, bend->half);
  const __m256i bent = bf_join(bf_shift64(sums.even, shift), bf_shift64(sums.odd, shift));
  return _mm256_castps_si256(
      _mm256_blendv_ps(_mm256_castsi256_ps(y), _mm256_castsi256_ps(bent), _mm256_castsi256_ps(y)));
}

BF_INLINE void bf_finish_wide(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                              const bf_wide_update update) {
  const bf_epilogue *e = &step->epilogue;
  const bf_rule lo = bf_load_rule(e, rows->lane), hi = bf_load_rule(e, rows->lane + 8);
  const size_t num_pixels = rows->num_pixels, count = rows->count, shift = e->shift;
  const __m256i least = _mm256_set1_epi32(e->has_relu ? 0 : INT32_MIN);
  const int32_t *add = (const int32_t *)(const void *)(arena + e->add) + rows->at;
  int32_t *out = (int32_t *)(void *)(arena + step->out) + rows->at;
  const size_t has_add = e->has_add, pitch = step->o;
  const size_t bends = e->negative_multiplier != NULL, bend_shift = e->negative_shift;
  bf_bend bend_lo = {least, {least, least}}, bend_hi = bend_lo;
  if (bends) {
    bend_lo = bf_load_bend(e, rows->lane);
    bend_hi = bf_load_bend(e, rows->lane + 8);
  }
  for (size_t i = 0; i < num_pixels; i++) {
    const bf_pair x = bf_load16(rows->acc + i * rows->stride);
    bf_pair y = {_mm256_max_epi32(update(&lo, x.lo, shift), least),
                 _mm256_max_epi32(update(&hi, x.hi, shift), least)};
    if (bends) {
      y.lo = bf_bent(&bend_lo, y.lo, bend_shift);
      y.hi = bf_bent(&bend_hi, y.hi, bend_shift);
    }
    if (has_add) {
      const bf_pair other = bf_load16(add + i * pitch);
      y.lo = _mm256_add_epi32(y.lo, other.lo);
      y.hi = _mm256_add_epi32(y.hi, other.hi);
    }
    bf_store_wide(y, count, out + i * pitch);
  }
}

/* Whatever has no vector form, pixel by pixel in plain C. */
BF_INLINE void bf_finish_any(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  for (size_t i = 0; i < rows->num_pixels; i++) {
    bf_finish(step, arena, rows->acc + i * rows->stride, rows->lane, rows->count,
              rows->at + i * step->o);
  }
}

/* Writes the results of `rows` into the output. */
BF_INLINE void bf_finish_rows(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  const size_t form = e->kind == BF_TO_INDICES ? e->index_form[rows->lane / BF_LANES] : 0;
  if (e->kind == BF_TO_INDICES && form == BF_LINE32) {
    bf_finish_line(step, arena, rows, bf_line32);
  } else if (e->kind == BF_TO_INDICES && form == BF_LINE64) {
    bf_finish_line(step, arena, rows, bf_line64);
  } else if (e->kind == BF_TO_INDICES && e->num_thresholds == 3) {
    bf_finish_few(step, arena, rows, 3);
  } else if (e->kind == BF_TO_INDICES && e->num_thresholds == 2) {
    bf_finish_few(step, arena, rows, 2);
  } else if (e->kind == BF_TO_INDICES) {
    bf_finish_compare(step, arena, rows);
  } else if (e->kind == BF_TO_ACCUMULATORS || e->wide_form == BF_WIDE_ANY) {
    bf_finish_any(step, arena, rows);
  } else if (e->wide_form == BF_WIDE32) {
    bf_finish_wide(step, arena, rows, bf_wide32);
  } else {
    bf_finish_wide(step, arena, rows, bf_wide64);
  }
}

#endif
