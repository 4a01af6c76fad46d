/* AVX-512 epilogues: a block of 16 lanes a register, indices of four pixels packed together. The
 * forms are those of isa/avx2.h.
 */
#ifndef BITFOLD_AVX512_FINISH_H
#define BITFOLD_AVX512_FINISH_H

#include "isa/avx512.h"

typedef int32_t bf_sixteen __attribute__((vector_size(64)));
typedef int64_t bf_eight __attribute__((vector_size(64)));

BF_INLINE __m512i bf_load_zmm(const void *p) { return _mm512_loadu_si512(p); }

BF_INLINE bf_pair bf_halves(__m512i x) {
  return (bf_pair){_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)};
}

/* Low words of sixteen int64 constants. */
BF_INLINE __m512i bf_low_sixteen(const int64_t *p) {
  const __m512i low = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutex2var_epi32(bf_load_zmm(p), low, bf_load_zmm(p + 8));
}

/* Sixteen int64 as those of even and of odd lanes. */
typedef struct bf_eights {
  __m512i even, odd;
} bf_eights;

BF_INLINE bf_eights bf_load_eights(const int64_t *p) {
  const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i lower = bf_load_zmm(p), upper = bf_load_zmm(p + 8);
  return (bf_eights){_mm512_permutex2var_epi64(lower, even, upper),
                     _mm512_permutex2var_epi64(lower, odd, upper)};
}

/* x * slope + intercept in 64 bits */
BF_INLINE bf_eights bf_wide_sums(__m512i x, __m512i slope, bf_eights intercept) {
  const __m512i even = _mm512_mul_epi32(x, slope);
  const __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(slope, 32));
  return (bf_eights){_mm512_add_epi64(even, intercept.even), _mm512_add_epi64(odd, intercept.odd)};
}

/* Low words of both, in the lanes' order. */
BF_INLINE __m512i bf_join_eights(__m512i even, __m512i odd) {
  return _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

/* Floor shifts by vectors: one operation everywhere, where a scalar's may be two. SIMDe 0.7 lacks
 * both.
 */
#if defined(BF_EMULATE_AVX512)
#define BF_FLOOR32(x, shift) ((__m512i)((bf_sixteen)(x) >> (bf_sixteen)(shift)))
#define BF_FLOOR64(x, shift) ((__m512i)((bf_eight)(x) >> (bf_eight)(shift)))
#else
#define BF_FLOOR32(x, shift) _mm512_srav_epi32(x, shift)
#define BF_FLOOR64(x, shift) _mm512_srav_epi64(x, shift)
#endif

BF_INLINE __m512i bf_shift_eights(bf_eights sums, __m512i shift) {
  return bf_join_eights(BF_FLOOR64(sums.even, shift), BF_FLOOR64(sums.odd, shift));
}

/* ------------------------------------------------------------------------------- indices */

typedef struct bf_wide_line {
  __m512i low, high, slope, shift, intercept32;
  bf_eights intercept;
} bf_wide_line;

BF_INLINE bf_wide_line bf_load_wide_line(const bf_epilogue *e, size_t lane) {
  return (bf_wide_line){.low = bf_load_zmm(e->low + lane),
                        .high = bf_load_zmm(e->high + lane),
                        .slope = bf_load_zmm(e->slope + lane),
                        .shift = bf_load_zmm(e->index_shift + lane),
                        .intercept32 = bf_low_sixteen(e->intercept + lane),
                        .intercept = bf_load_eights(e->intercept + lane)};
}

/* Thresholds of a block: the first three, and all of them in memory. */
typedef struct bf_bounds {
  __m512i sign, bounds[BF_FEW_THRESHOLDS];
  const int32_t *table;
  size_t count;
} bf_bounds;

BF_INLINE bf_bounds bf_load_bounds(const bf_epilogue *e, size_t lane, const size_t count) {
  bf_bounds all = {.sign = (__m512i)((bf_sixteen)bf_load_zmm(e->sign + lane) >> 31),
                   .table = e->table + lane * count,
                   .count = count};
  for (size_t j = 0; j < count && j < BF_FEW_THRESHOLDS; j++) {
    all.bounds[j] = bf_load_zmm(all.table + j * BF_LANES);
  }
  return all;
}

/* Indices of 16 lanes, from what `constants` points to. */
typedef __m512i (*bf_index_rule)(const void *constants, __m512i acc);

BF_INLINE __m512i bf_rule_line32(const void *constants, __m512i acc) {
  const bf_wide_line *line = constants;
  const __m512i x = _mm512_min_epi32(_mm512_max_epi32(acc, line->low), line->high);
  const __m512i product = _mm512_mullo_epi32(x, line->slope);
  return _mm512_srlv_epi32(_mm512_add_epi32(product, line->intercept32), line->shift);
}

BF_INLINE __m512i bf_rule_line64(const void *constants, __m512i acc) {
  const bf_wide_line *line = constants;
  const __m512i x = _mm512_min_epi32(_mm512_max_epi32(acc, line->low), line->high);
  const bf_eights sums = bf_wide_sums(x, line->slope, line->intercept);
  const __m512i even_shift = _mm512_and_si512(line->shift, _mm512_set1_epi64(0xffffffff));
  return bf_join_eights(_mm512_srlv_epi64(sums.even, even_shift),
                        _mm512_srlv_epi64(sums.odd, _mm512_srli_epi64(line->shift, 32)));
}

/* sign * acc, the sign being 0 or -1 here */
BF_INLINE __m512i bf_signed(const bf_bounds *all, __m512i acc) {
  return _mm512_sub_epi32(_mm512_xor_si512(acc, all->sign), all->sign);
}

/* How many of `count` thresholds are not above x. */
BF_INLINE __m512i bf_count_few(const bf_bounds *all, __m512i acc, const size_t count) {
  const __m512i x = bf_signed(all, acc), one = _mm512_set1_epi32(1);
  __m512i index = _mm512_setzero_si512();
  for (size_t j = 0; j < count; j++) {
    const __mmask16 reached = _mm512_cmple_epi32_mask(all->bounds[j], x);
    index = _mm512_mask_add_epi32(index, reached, index, one);
  }
  return index;
}

BF_INLINE __m512i bf_rule_one(const void *constants, __m512i acc) {
  return bf_count_few(constants, acc, 1);
}

BF_INLINE __m512i bf_rule_two(const void *constants, __m512i acc) {
  return bf_count_few(constants, acc, 2);
}

BF_INLINE __m512i bf_rule_three(const void *constants, __m512i acc) {
  return bf_count_few(constants, acc, 3);
}

BF_INLINE __m512i bf_rule_many(const void *constants, __m512i acc) {
  const bf_bounds *all = constants;
  const __m512i x = bf_signed(all, acc), one = _mm512_set1_epi32(1);
  __m512i index = _mm512_setzero_si512();
  for (size_t j = 0; j < all->count; j++) {
    const __m512i bound = bf_load_zmm(all->table + j * BF_LANES);
    index = _mm512_mask_add_epi32(index, _mm512_cmple_epi32_mask(bound, x), index, one);
  }
  return index;
}

#define BF_STORE_PART(x, part, out) \
  _mm_storeu_si128((__m128i *)(void *)(out), _mm512_extracti32x4_epi32(x, part))

/* Indices of 16 lanes of four pixels, `pitch` bytes apart. */
BF_INLINE void bf_store_four(const __m512i *index, uint8_t *out, size_t pitch) {
  const __m512i by_pixel = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i low = _mm512_packs_epi32(index[0], index[1]);
  const __m512i high = _mm512_packs_epi32(index[2], index[3]);
  const __m512i bytes = _mm512_permutexvar_epi32(by_pixel, _mm512_packus_epi16(low, high));
  BF_STORE_PART(bytes, 0, out);
  BF_STORE_PART(bytes, 1, out + pitch);
  BF_STORE_PART(bytes, 2, out + 2 * pitch);
  BF_STORE_PART(bytes, 3, out + 3 * pitch);
}

BF_INLINE void bf_finish_by_rule(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                                 const void *constants, const bf_index_rule rule) {
  const size_t num_pixels = rows->num_pixels, stride = rows->stride, pitch = step->o;
  const size_t count = rows->count;
  const int32_t *acc = rows->acc;
  uint8_t *out = arena + step->out + rows->at;
  size_t i = 0;
  for (; count == BF_LANES && i + 4 <= num_pixels; i += 4) {
    __m512i index[4];
    for (size_t j = 0; j < 4; j++) {
      index[j] = rule(constants, bf_load_zmm(acc + (i + j) * stride));
    }
    bf_store_four(index, out + i * pitch, pitch);
  }
  for (; i < num_pixels; i++) {
    const __m512i index = rule(constants, bf_load_zmm(acc + i * stride));
    bf_store_bytes(bf_halves(index), count, out + i * pitch);
  }
}

BF_INLINE void bf_finish_indices(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  const size_t form = e->index_form[rows->lane / BF_LANES], lane = rows->lane;
  if (form != BF_COMPARE) {
    const bf_wide_line line = bf_load_wide_line(e, lane);
    if (form == BF_LINE32) {
      bf_finish_by_rule(step, arena, rows, &line, bf_rule_line32);
    } else {
      bf_finish_by_rule(step, arena, rows, &line, bf_rule_line64);
    }
    return;
  }
  const bf_bounds bounds = bf_load_bounds(e, lane, e->num_thresholds);
  if (e->num_thresholds == 3) {
    bf_finish_by_rule(step, arena, rows, &bounds, bf_rule_three);
  } else if (e->num_thresholds == 2) {
    bf_finish_by_rule(step, arena, rows, &bounds, bf_rule_two);
  } else if (e->num_thresholds == 1) {
    bf_finish_by_rule(step, arena, rows, &bounds, bf_rule_one);
  } else {
    bf_finish_by_rule(step, arena, rows, &bounds, bf_rule_many);
  }
}

/* ---------------------------------------------------------------------- fixed-point updates */

/* Constants of an update of 16 lanes; those of the bend at 0 count where there is one. */
typedef struct bf_wide_rule {
  __m512i multiplier, offset32, least, bend;
  bf_eights offset, half;
  __m512i shift32, shift, bend_shift;
} bf_wide_rule;

BF_INLINE bf_wide_rule bf_load_wide_rule(const bf_epilogue *e, size_t lane) {
  const __m512i half = _mm512_set1_epi64(bf_round_bits(e->negative_shift));
  const int64_t *bend = e->negative_multiplier ? e->negative_multiplier : e->multiplier;
  return (bf_wide_rule){.multiplier = bf_low_sixteen(e->multiplier + lane),
                        .offset32 = bf_low_sixteen(e->offset + lane),
                        .least = _mm512_set1_epi32(e->has_relu ? 0 : INT32_MIN),
                        .bend = bf_low_sixteen(bend + lane),
                        .offset = bf_load_eights(e->offset + lane),
                        .half = {half, half},
                        .shift32 = _mm512_set1_epi32(e->shift < 31 ? (int)e->shift : 31),
                        .shift = _mm512_set1_epi64((int64_t)e->shift),
                        .bend_shift = _mm512_set1_epi64((int64_t)e->negative_shift)};
}

typedef __m512i (*bf_update)(const bf_wide_rule *rule, __m512i acc);

BF_INLINE __m512i bf_update32(const bf_wide_rule *rule, __m512i acc) {
  const __m512i product = _mm512_mullo_epi32(acc, rule->multiplier);
  const __m512i sum = _mm512_add_epi32(product, rule->offset32);
  return _mm512_max_epi32(BF_FLOOR32(sum, rule->shift32), rule->least);
}

BF_INLINE __m512i bf_update64(const bf_wide_rule *rule, __m512i acc) {
  const bf_eights sums = bf_wide_sums(acc, rule->multiplier, rule->offset);
  return _mm512_max_epi32(bf_shift_eights(sums, rule->shift), rule->least);
}

/* y, or (bend * y + half) >> bend_shift where y < 0 */
BF_INLINE __m512i bf_bend_below(const bf_wide_rule *rule, __m512i y) {
  const bf_eights sums = bf_wide_sums(y, rule->bend, rule->half);
  const __mmask16 below = _mm512_cmpgt_epi32_mask(_mm512_setzero_si512(), y);
  return _mm512_mask_mov_epi32(y, below, bf_shift_eights(sums, rule->bend_shift));
}

BF_INLINE void bf_finish_updates(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                                 const bf_update update) {
  const bf_epilogue *e = &step->epilogue;
  const bf_wide_rule rule = bf_load_wide_rule(e, rows->lane);
  const size_t num_pixels = rows->num_pixels, stride = rows->stride, count = rows->count;
  const size_t has_add = e->has_add, bends = e->negative_multiplier != NULL, pitch = step->o;
  const int32_t *acc = rows->acc;
  const int32_t *add = (const int32_t *)(const void *)(arena + e->add) + rows->at;
  int32_t *out = (int32_t *)(void *)(arena + step->out) + rows->at;
  for (size_t i = 0; i < num_pixels; i++) {
    __m512i y = update(&rule, bf_load_zmm(acc + i * stride));
    if (bends) {
      y = bf_bend_below(&rule, y);
    }
    if (has_add) {
      y = _mm512_add_epi32(y, bf_load_zmm(add + i * pitch));
    }
    if (count == BF_LANES) {
      _mm512_storeu_si512((void *)(out + i * pitch), y);
    } else {
      bf_store_wide(bf_halves(y), count, out + i * pitch);
    }
  }
}

/* Writes the results of `rows` into the output. */
BF_ONCE void bf_finish_wide_rows(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  if (e->kind == BF_TO_INDICES) {
    bf_finish_indices(step, arena, rows);
  } else if (e->kind == BF_TO_ACCUMULATORS || e->wide_form == BF_WIDE_ANY) {
    bf_finish_any(step, arena, rows);
  } else if (e->wide_form == BF_WIDE32) {
    bf_finish_updates(step, arena, rows, bf_update32);
  } else {
    bf_finish_updates(step, arena, rows, bf_update64);
  }
}

#endif
