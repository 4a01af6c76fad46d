/* AVX-512 VBMI tiles of look-ups: vpermb in rows of 64 bytes, sums of bytes flushed to 16 bits. */
#ifndef BITFOLD_AVX512_LOOKUP_H
#define BITFOLD_AVX512_LOOKUP_H

#include "isa/avx2_lookup.h"
#include "isa/avx512_finish.h"

/* As bf_lookup_sums, of 64 lanes. */
typedef struct bf_lookup_totals {
  __m512i both, upper;
} bf_lookup_totals;

BF_INLINE void bf_flush_wide(bf_lookup_totals *sums, __m512i bytes) {
  sums->both = _mm512_add_epi16(sums->both, bytes);
  sums->upper = _mm512_add_epi16(sums->upper, _mm512_srli_epi16(bytes, 8));
}

/* bias + factor * sum of 16 lanes, at one pixel. */
BF_INLINE __m512i bf_lookup_lanes(const bf_step *step, __m256i words, size_t lane) {
  typedef uint16_t bf_words16 __attribute__((vector_size(32)));
  typedef int32_t bf_lanes16 __attribute__((vector_size(64)));
  const __m512i factor = _mm512_set1_epi32(((const bf_dictionary *)step->extra)->factor);
  const __m512i sums = (__m512i) __builtin_convertvector((bf_words16)words, bf_lanes16);
  return _mm512_add_epi32(_mm512_mullo_epi32(sums, factor), bf_load_zmm(step->bias + lane));
}

/* As bf_finish_lookups. */
BF_ONCE void bf_finish_wide_lookups(const bf_step *step, uint8_t *arena,
                                    const bf_lookup_place *place, const __m256i *words,
                                    size_t block) {
  int32_t acc[BF_LOOKUP_PIXELS * BF_LANES];
  if (block < place->wanted.begin || block >= place->wanted.end) {
    return;
  }
  for (size_t i = 0; i < BF_LOOKUP_PIXELS; i++) {
    const __m512i lanes = bf_lookup_lanes(step, words[i], block * BF_LANES);
    _mm512_storeu_si512((void *)(acc + i * BF_LANES), lanes);
  }
  const bf_rows rows = bf_looked_up(step, place, acc, block);
  bf_finish_wide_rows(step, arena, &rows);
}

/* The four blocks of one vector, the first of them `block`. */
BF_INLINE void bf_finish_wide_vector(const bf_step *step, uint8_t *arena,
                                     const bf_lookup_place *place, const bf_lookup_totals *sums,
                                     size_t block) {
  __m256i words[4][BF_LOOKUP_PIXELS];
  for (size_t i = 0; i < BF_LOOKUP_PIXELS; i++) {
    const __m512i upper = sums[i].upper;
    const __m512i lower = _mm512_sub_epi16(sums[i].both, _mm512_slli_epi16(upper, 8));
    words[0][i] = _mm512_castsi512_si256(lower);
    words[1][i] = _mm512_extracti64x4_epi64(lower, 1);
    words[2][i] = _mm512_castsi512_si256(upper);
    words[3][i] = _mm512_extracti64x4_epi64(upper, 1);
  }
  for (size_t j = 0; j < 4; j++) {
    bf_finish_wide_lookups(step, arena, place, words[j], block + j);
  }
}

#define BF_WIDE_ZERO(i) __m512i sum0##i = none, sum1##i = none, sum2##i = none, sum3##i = none;

#define BF_WIDE_FLUSH_ONE(i, v)                              \
  bf_flush_wide(&sums[v * BF_LOOKUP_PIXELS + i], sum##v##i); \
  sum##v##i = none;
#define BF_WIDE_FLUSH(i)    \
  BF_WIDE_FLUSH_ONE(i, 0)   \
  if (num_vectors > 1) {    \
    BF_WIDE_FLUSH_ONE(i, 1) \
  }                         \
  if (num_vectors > 2) {    \
    BF_WIDE_FLUSH_ONE(i, 2) \
    BF_WIDE_FLUSH_ONE(i, 3) \
  }

/* The saturating sum runs on ports that vpermb leaves free; it never saturates. */
#define BF_WIDE_LOOK(i, v) \
  sum##v##i = _mm512_adds_epu8(sum##v##i, _mm512_permutexvar_epi8(index##v, entries));
#define BF_WIDE_LOOK_UP(i)                \
  entries = bf_load_zmm(table + x##i[k]); \
  BF_WIDE_LOOK(i, 0)                      \
  if (num_vectors > 1) {                  \
    BF_WIDE_LOOK(i, 1)                    \
  }                                       \
  if (num_vectors > 2) {                  \
    BF_WIDE_LOOK(i, 2)                    \
    BF_WIDE_LOOK(i, 3)                    \
  }

#define BF_WIDE_NEXT(i) x##i += run;

/* `num_vectors`, 1, 2 or 4, of 64 channels x 4 pixels. Loads bound the first two: of 4 vectors they
 * are 12 for 16 look-ups, of 2 they are 10 for 8.
 */
BF_INLINE void bf_lookup_wide(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_lookup_place *restrict place, const size_t num_vectors) {
  const bf_dictionary *dictionary = step->extra;
  const uint8_t *table = dictionary->table;
  const __m512i none = _mm512_setzero_si512();
  const size_t panel_bytes = step->panel_bytes;
  const uint8_t *weight = place->panel;
  bf_lookup_totals sums[4 * BF_LOOKUP_PIXELS];
  size_t room = dictionary->flush;
  memset(sums, 0, num_vectors * BF_LOOKUP_PIXELS * sizeof *sums);
  BF_EACH_PIXEL(BF_WIDE_ZERO)
  for (size_t row = 0; row < step->kernel_h; row++) {
    BF_EACH_PIXEL(BF_LOOKUP_WINDOW)
    size_t left = step->kernel_w * dictionary->pixel_groups;
    while (left) {
      const size_t run = bf_least(left, room);
      for (size_t k = 0; k < run; k++) {
        const uint8_t *at = weight + 64 * k;
        const __m512i index0 = bf_load_zmm(at);
        const __m512i index1 = num_vectors > 1 ? bf_load_zmm(at + panel_bytes) : none;
        const __m512i index2 = num_vectors > 2 ? bf_load_zmm(at + 2 * panel_bytes) : none;
        const __m512i index3 = num_vectors > 2 ? bf_load_zmm(at + 3 * panel_bytes) : none;
        __m512i entries;
        BF_EACH_PIXEL(BF_WIDE_LOOK_UP)
      }
      weight += 64 * run;
      BF_EACH_PIXEL(BF_WIDE_NEXT)
      left -= run;
      room -= run;
      if (!room) {
        BF_EACH_PIXEL(BF_WIDE_FLUSH)
        room = dictionary->flush;
      }
    }
  }
  BF_EACH_PIXEL(BF_WIDE_FLUSH)
  for (size_t j = 0; j < num_vectors; j++) {
    bf_finish_wide_vector(step, arena, place, sums + j * BF_LOOKUP_PIXELS,
                          place->blocks.begin + 4 * j);
  }
}

BF_INLINE void bf_lookup_quad_vbmi(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_lookup_place *restrict place) {
  bf_lookup_wide(step, arena, place, 4);
}

BF_INLINE void bf_lookup_pair_vbmi(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_lookup_place *restrict place) {
  bf_lookup_wide(step, arena, place, 2);
}

BF_INLINE void bf_lookup_single_vbmi(const bf_step *restrict step, uint8_t *restrict arena,
                                     const bf_lookup_place *restrict place) {
  bf_lookup_wide(step, arena, place, 1);
}

/* How 16 codes of up to 4 channels, or 8 of up to 8, come out of consecutive bytes. */
typedef struct bf_encoding {
  size_t num_codes;
  __m512i places;  /* of the bytes of every code, in slots of 4 or 8 */
  __m512i powers;  /* of levels, and zeros behind them */
  __m512i results; /* the first two bytes of every slot */
} bf_encoding;

BF_INLINE bf_encoding bf_encoding_of(const bf_dictionary *dictionary) {
  const size_t slot = dictionary->group > 4 ? 8 : 4;
  uint8_t places[64] = {0}, powers[64] = {0}, results[64] = {0};
  for (size_t i = 0; i < 64 / slot; i++) {
    size_t power = 1;
    for (size_t j = 0; j < dictionary->group; j++) {
      places[i * slot + j] = (uint8_t)(i * dictionary->group + j);
      powers[i * slot + j] = (uint8_t)power;
      power *= dictionary->levels;
    }
    results[2 * i] = (uint8_t)(i * slot);
    results[2 * i + 1] = (uint8_t)(i * slot + 1);
  }
  return (bf_encoding){64 / slot, bf_load_zmm(places), bf_load_zmm(powers), bf_load_zmm(results)};
}

BF_INLINE __m256i bf_encode_block(const bf_encoding *encoding, __m512i x) {
  const __m512i bytes = _mm512_permutexvar_epi8(encoding->places, x);
  const __m512i pairs = _mm512_maddubs_epi16(bytes, encoding->powers);
  __m512i codes = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  if (encoding->num_codes == 8) {
    codes = _mm512_add_epi32(codes, _mm512_srli_epi64(codes, 32));
  }
  codes = _mm512_permutexvar_epi8(encoding->results, _mm512_slli_epi32(codes, 6));
  return _mm512_castsi512_si256(codes);
}

/* Codes past the last one of a pixel are written over by what follows them. */
BF_INLINE void bf_encode_vbmi(const bf_step *restrict step, const uint8_t *restrict x, size_t pitch,
                              size_t num_pixels, uint16_t *restrict codes) {
  const bf_dictionary *dictionary = step->extra;
  const bf_encoding encoding = bf_encoding_of(dictionary);
  const size_t block = encoding.num_codes * dictionary->group;
  for (size_t i = 0; i < num_pixels; i++) {
    size_t left = step->group_c;
    for (size_t k = 0; k < dictionary->pixel_groups; k += encoding.num_codes) {
      const size_t count = bf_least(left, block);
      const uint8_t *from = x + i * pitch + step->group_c - left;
      uint8_t last[64] = {0};
      if (count < block) {
        memcpy(last, from, count);
        from = last;
      }
      const __m256i words = bf_encode_block(&encoding, bf_load_zmm(from));
      _mm256_storeu_si256((__m256i *)(void *)(codes + k), words);
      left -= count;
    }
    codes += dictionary->pixel_groups;
  }
}

#endif
