/* AVX2 tiles of look-ups: vpshufb in rows of 16 bytes, sums of bytes flushed to 16 bits. */
#ifndef BITFOLD_AVX2_LOOKUP_H
#define BITFOLD_AVX2_LOOKUP_H

#include "generic/conv2d_dictionary.h"
#include "isa/avx2.h"

/* Sums of the 32 lanes of one vector at one pixel, modulo 2^16: of both bytes of every word
 * (lower + 256 * upper), and of the upper ones.
 */
typedef struct bf_lookup_sums {
  __m256i both, upper;
} bf_lookup_sums;

BF_INLINE void bf_flush_bytes(bf_lookup_sums *sums, __m256i bytes) {
  sums->both = _mm256_add_epi16(sums->both, bytes);
  sums->upper = _mm256_add_epi16(sums->upper, _mm256_srli_epi16(bytes, 8));
}

/* bias + factor * sum of 16 lanes. */
BF_INLINE void bf_store_lookups(const bf_step *step, __m256i words, size_t lane, int32_t *acc) {
  const __m256i factor = _mm256_set1_epi32(((const bf_dictionary *)step->extra)->factor);
  const __m256i lo = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words));
  const __m256i hi = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(words, 1));
  const bf_pair bias = bf_load16(step->bias + lane);
  const bf_pair total = {_mm256_add_epi32(_mm256_mullo_epi32(lo, factor), bias.lo),
                         _mm256_add_epi32(_mm256_mullo_epi32(hi, factor), bias.hi)};
  bf_store_wide(total, BF_LANES, acc);
}

/* The results `acc` of block `block`. */
BF_INLINE bf_rows bf_looked_up(const bf_step *step, const bf_lookup_place *place,
                               const int32_t *acc, size_t block) {
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t group = block / per_group, o = block % per_group * BF_LANES;
  const size_t left = step->group_o - o;
  return (bf_rows){.acc = acc,
                   .stride = BF_LANES,
                   .num_pixels = place->num_pixels,
                   .lane = block * BF_LANES,
                   .count = left < BF_LANES ? left : BF_LANES,
                   .at = place->pixel * step->o + group * step->group_o + o};
}

/* Block `block` of 16 channels, where it is the share's; `words` are its sums at every pixel. */
BF_ONCE void bf_finish_lookups(const bf_step *step, uint8_t *arena, const bf_lookup_place *place,
                               const __m256i *words, size_t block) {
  int32_t acc[BF_LOOKUP_PIXELS * BF_LANES];
  if (block < place->wanted.begin || block >= place->wanted.end) {
    return;
  }
  for (size_t i = 0; i < BF_LOOKUP_PIXELS; i++) {
    bf_store_lookups(step, words[i], block * BF_LANES, acc + i * BF_LANES);
  }
  const bf_rows rows = bf_looked_up(step, place, acc, block);
  bf_finish_rows(step, arena, &rows);
}

/* The two blocks of one vector, the first of them `block`. */
BF_INLINE void bf_finish_vector(const bf_step *step, uint8_t *arena, const bf_lookup_place *place,
                                const bf_lookup_sums *sums, size_t block) {
  __m256i lower[BF_LOOKUP_PIXELS], upper[BF_LOOKUP_PIXELS];
  for (size_t i = 0; i < BF_LOOKUP_PIXELS; i++) {
    upper[i] = sums[i].upper;
    lower[i] = _mm256_sub_epi16(sums[i].both, _mm256_slli_epi16(upper[i], 8));
  }
  bf_finish_lookups(step, arena, place, lower, block);
  bf_finish_lookups(step, arena, place, upper, block + 1);
}

#define BF_EACH_PIXEL(f) f(0) f(1) f(2) f(3)

#define BF_LOOKUP_ZERO(i) __m256i first##i = zero, second##i = zero;
#define BF_LOOKUP_WINDOW(i) \
  const uint16_t *x##i = place->windows[i] + row * step->padded_w * dictionary->pixel_groups;

/* Two codes at once: loads are what these loops have least of. */
#define BF_LOOKUP_CODES(i) uint32_t code##i = bf_load_codes(x##i + 2 * k);

BF_INLINE uint32_t bf_load_codes(const uint16_t *p) {
  uint32_t codes;
  memcpy(&codes, p, sizeof codes);
  return codes;
}

BF_INLINE __m256i bf_load_row(const uint8_t *row) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)row));
}

/* sum += row[index] in every byte. As one piece: compilers would gather the look-ups in front of
 * the sums, and run out of registers.
 */
BF_INLINE __m256i bf_look_up(__m256i sum, __m256i row, __m256i index) {
  __m256i entry;
  __asm__("vpshufb %3, %2, %1\n\tvpaddb %1, %0, %0"
          : "+x"(sum), "=&x"(entry)
          : "x"(row), "x"(index));
  return sum;
}

#define BF_LOOKUP_PAIR(i, code)                    \
  entries = bf_load_row(table + (code));           \
  first##i = bf_look_up(first##i, entries, index); \
  second##i = bf_look_up(second##i, entries, other);
#define BF_LOOKUP_PAIR_LOW(i) BF_LOOKUP_PAIR(i, (uint16_t)code##i)
#define BF_LOOKUP_PAIR_HIGH(i) BF_LOOKUP_PAIR(i, code##i >> 16)

#define BF_LOOKUP_ONE(i, code)           \
  entries = bf_load_row(table + (code)); \
  first##i = bf_look_up(first##i, entries, index);
#define BF_LOOKUP_ONE_LOW(i) BF_LOOKUP_ONE(i, (uint16_t)code##i)
#define BF_LOOKUP_ONE_HIGH(i) BF_LOOKUP_ONE(i, code##i >> 16)
#define BF_LOOKUP_NEXT(i) x##i += 2 * run;

#define BF_LOOKUP_FLUSH(i)                                \
  bf_flush_bytes(&sums[i], first##i);                     \
  bf_flush_bytes(&sums[BF_LOOKUP_PIXELS + i], second##i); \
  first##i = second##i = zero;

BF_INLINE __m256i bf_load_vector(const uint8_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE size_t bf_least(size_t a, size_t b) { return a < b ? a : b; }

/* 64 channels x 4 pixels. */
BF_INLINE void bf_lookup_pair_avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_lookup_place *restrict place) {
  const bf_dictionary *dictionary = step->extra;
  const uint8_t *table = dictionary->table;
  const __m256i zero = _mm256_setzero_si256(), nibble = _mm256_set1_epi8(15);
  const uint8_t *weight = place->panel, *above = weight + step->panel_bytes;
  bf_lookup_sums sums[2 * BF_LOOKUP_PIXELS];
  size_t room = dictionary->flush / 2;
  memset(sums, 0, sizeof sums);
  BF_EACH_PIXEL(BF_LOOKUP_ZERO)
  for (size_t row = 0; row < step->kernel_h; row++) {
    BF_EACH_PIXEL(BF_LOOKUP_WINDOW)
    size_t left = step->kernel_w * dictionary->pixel_groups / 2;
    while (left) {
      const size_t run = bf_least(left, room);
      for (size_t k = 0; k < run; k++) {
        BF_EACH_PIXEL(BF_LOOKUP_CODES)
        __m256i index = _mm256_and_si256(bf_load_vector(weight), nibble), entries;
        __m256i other = _mm256_and_si256(bf_load_vector(above), nibble);
        BF_EACH_PIXEL(BF_LOOKUP_PAIR_LOW)
        index = _mm256_and_si256(_mm256_srli_epi16(bf_load_vector(weight), 4), nibble);
        other = _mm256_and_si256(_mm256_srli_epi16(bf_load_vector(above), 4), nibble);
        BF_EACH_PIXEL(BF_LOOKUP_PAIR_HIGH)
        weight += 32;
        above += 32;
      }
      BF_EACH_PIXEL(BF_LOOKUP_NEXT)
      left -= run;
      room -= run;
      if (!room) {
        BF_EACH_PIXEL(BF_LOOKUP_FLUSH)
        room = dictionary->flush / 2;
      }
    }
  }
  BF_EACH_PIXEL(BF_LOOKUP_FLUSH)
  bf_finish_vector(step, arena, place, sums, place->blocks.begin);
  bf_finish_vector(step, arena, place, sums + BF_LOOKUP_PIXELS, place->blocks.begin + 2);
}

/* 32 channels x 4 pixels. */
BF_INLINE void bf_lookup_single_avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                     const bf_lookup_place *restrict place) {
  const bf_dictionary *dictionary = step->extra;
  const uint8_t *table = dictionary->table;
  const __m256i zero = _mm256_setzero_si256(), nibble = _mm256_set1_epi8(15);
  const uint8_t *weight = place->panel;
  bf_lookup_sums sums[2 * BF_LOOKUP_PIXELS];
  size_t room = dictionary->flush / 2;
  memset(sums, 0, sizeof sums);
  BF_EACH_PIXEL(BF_LOOKUP_ZERO)
  for (size_t row = 0; row < step->kernel_h; row++) {
    BF_EACH_PIXEL(BF_LOOKUP_WINDOW)
    size_t left = step->kernel_w * dictionary->pixel_groups / 2;
    while (left) {
      const size_t run = bf_least(left, room);
      for (size_t k = 0; k < run; k++) {
        BF_EACH_PIXEL(BF_LOOKUP_CODES)
        const __m256i both = bf_load_vector(weight);
        __m256i index = _mm256_and_si256(both, nibble), entries;
        BF_EACH_PIXEL(BF_LOOKUP_ONE_LOW)
        index = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        BF_EACH_PIXEL(BF_LOOKUP_ONE_HIGH)
        weight += 32;
      }
      BF_EACH_PIXEL(BF_LOOKUP_NEXT)
      left -= run;
      room -= run;
      if (!room) {
        BF_EACH_PIXEL(BF_LOOKUP_FLUSH)
        room = dictionary->flush / 2;
      }
    }
  }
  BF_EACH_PIXEL(BF_LOOKUP_FLUSH)
  bf_finish_vector(step, arena, place, sums, place->blocks.begin);
}

/* Codes of groups of 2 or 4 channels where every group is whole and even in number. */
BF_INLINE void bf_encode_words(const bf_dictionary *dictionary, const uint8_t *restrict x,
                               size_t num_codes, uint16_t *restrict codes) {
  const int levels = (int)dictionary->levels;
  const __m256i pairs = _mm256_set1_epi16((short)(1 | levels << 8));
  const __m256i quads = _mm256_set1_epi32(1 | (levels * levels) << 16);
  size_t at = 0;
  for (; dictionary->group == 2 && at + 16 <= num_codes; at += 16) {
    const __m256i words = _mm256_maddubs_epi16(bf_load_vector(x + 2 * at), pairs);
    _mm256_storeu_si256((__m256i *)(void *)(codes + at), _mm256_slli_epi16(words, 4));
  }
  for (; dictionary->group == 4 && at + 16 <= num_codes; at += 16) {
    const __m256i lo =
        _mm256_madd_epi16(_mm256_maddubs_epi16(bf_load_vector(x + 4 * at), pairs), quads);
    const __m256i hi =
        _mm256_madd_epi16(_mm256_maddubs_epi16(bf_load_vector(x + 4 * at + 32), pairs), quads);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8);
    _mm256_storeu_si256((__m256i *)(void *)(codes + at), _mm256_slli_epi16(words, 4));
  }
  for (; at < num_codes; at++) {
    codes[at] = (uint16_t)bf_group_code(dictionary, x + at * dictionary->group, dictionary->group);
  }
}

BF_INLINE void bf_encode_avx2(const bf_step *restrict step, const uint8_t *restrict x, size_t pitch,
                              size_t num_pixels, uint16_t *restrict codes) {
  const bf_dictionary *dictionary = step->extra;
  const size_t num_codes = dictionary->pixel_groups;
  if (num_codes * dictionary->group != step->group_c) {
    bf_encode_scalar(step, x, pitch, num_pixels, codes);
  } else if (pitch == step->group_c) {
    bf_encode_words(dictionary, x, num_pixels * num_codes, codes);
  } else {
    for (size_t i = 0; i < num_pixels; i++) {
      bf_encode_words(dictionary, x + i * pitch, num_codes, codes + i * num_codes);
    }
  }
}

#endif
