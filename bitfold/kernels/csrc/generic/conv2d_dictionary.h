/* The loops around a tile of look-ups.
 *
 * Every channel group of every input pixel becomes one 16-bit code: the byte offset of its row in
 * the table. Codes lie in scratch as (padded_h, padded_w, pixel_groups), one conv group at a time;
 * each serves all windows and all output channels. A *vector* is the weight indices of 32 channels
 * (64 with 64 entries): byte 2i is channel i, byte 2i + 1 channel i of the upper half.
 */
#ifndef BITFOLD_CONV2D_DICTIONARY_H
#define BITFOLD_CONV2D_DICTIONARY_H

#include "generic/epilogue.h"
#include "generic/geometry.h"

enum { BF_LOOKUP_PIXELS = 4 };

/* Codes of `num_pixels` pixels, `pitch` input bytes apart; ISA-specific. */
typedef void (*bf_encoder)(const bf_step *restrict step, const uint8_t *restrict x, size_t pitch,
                           size_t num_pixels, uint16_t *restrict codes);

typedef struct bf_lookup_place {
  const uint16_t *windows[BF_LOOKUP_PIXELS];
  size_t num_pixels;
  const uint8_t *panel;
  bf_span blocks; /* of 16 channels, of which the first is the panel's first */
  bf_span wanted; /* those of them that are the share's */
  size_t pixel;   /* output pixel of the first window */
} bf_lookup_place;

typedef void (*bf_lookup_tile)(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_lookup_place *restrict place);

static inline size_t bf_group_code(const bf_dictionary *restrict dictionary,
                                   const uint8_t *restrict x, size_t count) {
  size_t code = 0;
  for (size_t j = count; j-- > 0;) {
    code = code * dictionary->levels + x[j];
  }
  return code * dictionary->entries;
}

static inline void bf_encode_scalar(const bf_step *restrict step, const uint8_t *restrict x,
                                    size_t pitch, size_t num_pixels, uint16_t *restrict codes) {
  const bf_dictionary *dictionary = step->extra;
  const size_t group = dictionary->group;
  for (size_t i = 0; i < num_pixels; i++) {
    for (size_t k = 0; k < dictionary->pixel_groups; k++) {
      const size_t first = k * group;
      const size_t left = first < step->group_c ? step->group_c - first : 0;
      const size_t count = left < group ? left : group;
      *codes++ = (uint16_t)bf_group_code(dictionary, x + i * pitch + first, count);
    }
  }
}

/* Codes of `num_pixels` pixels of padding. */
static inline void bf_encode_border(const bf_step *restrict step, size_t num_pixels,
                                    uint16_t *restrict codes) {
  const bf_dictionary *dictionary = step->extra;
  for (size_t i = 0; i < num_pixels; i++) {
    for (size_t k = 0; k < dictionary->pixel_groups; k++) {
      size_t code = 0;
      for (size_t j = dictionary->group; j-- > 0;) {
        const size_t exists = k * dictionary->group + j < step->group_c;
        code = code * dictionary->levels + (exists ? step->fill : 0);
      }
      *codes++ = (uint16_t)(code * dictionary->entries);
    }
  }
}

/* Codes of the rows `rows` of the padded input of one group. */
static inline __attribute__((always_inline)) void bf_encode_rows(const bf_step *restrict step,
                                                                 const uint8_t *x, bf_span rows,
                                                                 uint16_t *codes,
                                                                 const bf_encoder encode) {
  const size_t depth = ((const bf_dictionary *)step->extra)->pixel_groups;
  const size_t right = step->padded_w - step->w - step->left;
  for (size_t i = rows.begin; i < rows.end; i++) {
    uint16_t *row = codes + i * step->padded_w * depth;
    if (i < step->top || i >= step->top + step->h) {
      bf_encode_border(step, step->padded_w, row);
      continue;
    }
    bf_encode_border(step, step->left, row);
    row += step->left * depth;
    encode(step, x + (i - step->top) * step->w * step->c, step->c, step->w, row);
    bf_encode_border(step, right, row + step->w * depth);
  }
}

/* All pixels of the rows `rows`, `tile_pixels` at a time. */
static inline __attribute__((always_inline)) void bf_lookup_rows(
    const bf_step *restrict step, uint8_t *arena, const uint16_t *codes, bf_span rows,
    bf_lookup_place place, const bf_lookup_tile tile) {
  const size_t depth = ((const bf_dictionary *)step->extra)->pixel_groups;
  const size_t end = rows.end * step->ow;
  for (size_t pixel = rows.begin * step->ow; pixel < end; pixel += BF_LOOKUP_PIXELS) {
    const size_t left = end - pixel;
    place.pixel = pixel;
    place.num_pixels = left < BF_LOOKUP_PIXELS ? left : BF_LOOKUP_PIXELS;
    for (size_t i = 0; i < BF_LOOKUP_PIXELS; i++) {
      const size_t at = i < left ? pixel + i : pixel; /* a last tile computes some pixel twice */
      const size_t row = at / step->ow * step->stride_h, column = at % step->ow * step->stride_w;
      place.windows[i] = codes + (row * step->padded_w + column) * depth;
    }
    tile(step, arena, &place);
  }
}

/* Tiles of four vectors, of two and of one; `quad` may be NULL. */
typedef struct bf_lookup_tiles {
  bf_lookup_tile quad, pair, single;
} bf_lookup_tiles;

/* How many of `left` vectors one tile takes. */
static inline size_t bf_tile_vectors(const bf_lookup_tiles tiles, size_t left) {
  return tiles.quad && left > 3 ? 4 : left > 1 ? 2 : 1;
}

static inline __attribute__((always_inline)) void bf_lookup_vectors(
    const bf_step *restrict step, uint8_t *arena, const uint16_t *codes, bf_span rows,
    bf_lookup_place place, const bf_lookup_tiles tiles, size_t num_vectors) {
  if (tiles.quad && num_vectors == 4) {
    bf_lookup_rows(step, arena, codes, rows, place, tiles.quad);
  } else if (num_vectors == 2) {
    bf_lookup_rows(step, arena, codes, rows, place, tiles.pair);
  } else {
    bf_lookup_rows(step, arena, codes, rows, place, tiles.single);
  }
}

/* The share's blocks and rows: as many vectors at a time as a tile takes. */
static inline __attribute__((always_inline)) void bf_convolve_lookups(
    const bf_step *restrict step, uint8_t *arena, const bf_share *restrict share,
    const bf_encoder encode, const bf_lookup_tiles tiles) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const bf_span input_rows = bf_input_rows(step, part.rows);
  const size_t vector_blocks = ((const bf_dictionary *)step->extra)->vector_blocks;
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t per_group_vectors = (per_group + vector_blocks - 1) / vector_blocks;
  uint16_t *codes = (uint16_t *)(void *)bf_scratch(step, arena, share);
  size_t block = part.blocks.begin;
  while (block < part.blocks.end) {
    const size_t group = block / per_group, first = group * per_group;
    const size_t last = first + per_group < part.blocks.end ? first + per_group : part.blocks.end;
    bf_encode_rows(step, arena + step->x + group * step->group_c, input_rows, codes, encode);
    size_t vector = (block - first) / vector_blocks;
    while (first + vector * vector_blocks < last) {
      const size_t begin = first + vector * vector_blocks;
      const size_t num_left = (last - begin + vector_blocks - 1) / vector_blocks;
      const size_t num_vectors = bf_tile_vectors(tiles, num_left);
      const bf_lookup_place place = {
          .panel = (const uint8_t *)step->weight +
                   (group * per_group_vectors + vector) * step->panel_bytes,
          .blocks = {begin, begin + num_vectors * vector_blocks},
          .wanted = {block, last}};
      bf_lookup_vectors(step, arena, codes, part.rows, place, tiles, num_vectors);
      vector += num_vectors;
    }
    block = last;
  }
}

#endif
