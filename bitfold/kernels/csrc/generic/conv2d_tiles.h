/* The loops around register tiles of one block of 16 channels, of two or of four, with stored
 * panels or with panels that are expanded into scratch, once for all pixels of the share.
 */
#ifndef BITFOLD_CONV2D_TILES_H
#define BITFOLD_CONV2D_TILES_H

#include "generic/conv2d_direct.h"

/* Writes the int8 panel of one block; ISA-specific. */
typedef void (*bf_expander)(const bf_packed *restrict packed, const uint8_t *restrict panel,
                            int8_t *restrict expanded);

/* Tiles of two blocks and of one, and the pixels that each takes; of four blocks, `quad` may be
 * NULL and takes as many pixels as `pair`.
 */
typedef struct bf_block_tiles {
  bf_tile_kernel pair, single;
  size_t pair_pixels, single_pixels;
  bf_tile_kernel quad;
} bf_block_tiles;

/* Blocks of 16 channels from `block` that one tile may take, all the share's and of one group. */
static inline size_t bf_tile_blocks(const bf_step *restrict step, size_t block, size_t end,
                                    const bf_block_tiles tiles) {
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t of_group = per_group - block % per_group, of_share = end - block;
  const size_t left = of_group < of_share ? of_group : of_share;
  return tiles.quad && left > 3 && step->digits < 2 ? 4 : left > 1 ? 2 : 1;
}

/* Where a share's expanded panels lie: behind its padded copy. */
static inline int8_t *bf_expanded_panels(const bf_step *restrict step, uint8_t *restrict arena,
                                         const bf_share *restrict share) {
  const size_t copy_bytes = step->has_copy ? step->groups * bf_image_bytes(step) : 0;
  return (int8_t *)bf_scratch(step, arena, share) + (copy_bytes + 127) / 64 * 64;
}

static inline __attribute__((always_inline)) void bf_expand_panels(const bf_step *restrict step,
                                                                   size_t block, size_t num_blocks,
                                                                   int8_t *restrict expanded,
                                                                   const bf_expander expand) {
  const bf_packed *packed = step->extra;
  const uint8_t *panel = (const uint8_t *)step->weight + block * step->panel_bytes;
  for (size_t i = 0; i < num_blocks; i++) {
    expand(packed, panel + i * step->panel_bytes, expanded + i * packed->expanded_bytes);
  }
}

/* Tiles of one block. */
static inline __attribute__((always_inline)) void bf_convolve_packed(
    const bf_step *restrict step, uint8_t *restrict arena, const bf_share *restrict share,
    const bf_expander expand, const bf_tile_kernel tile, const size_t tile_pixels) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint8_t *input = bf_padded_input(step, arena, share, &part);
  int8_t *expanded = bf_expanded_panels(step, arena, share);
  for (size_t block = part.blocks.begin; block < part.blocks.end; block++) {
    bf_tile_place place = bf_block_place(step, block);
    bf_expand_panels(step, block, 1, expanded, expand);
    place.panel = expanded;
    place.at += part.rows.begin * step->ow * step->o;
    bf_convolve_block(step, arena, input + place.group * bf_image_bytes(step), part.rows, place,
                      tile, tile_pixels);
  }
}

/* Tiles of as many blocks as there are. Without `expand`, panels are read as they are stored. */
static inline __attribute__((always_inline)) void bf_convolve_pairs(const bf_step *restrict step,
                                                                    uint8_t *restrict arena,
                                                                    const bf_share *restrict share,
                                                                    const bf_expander expand,
                                                                    const bf_block_tiles tiles) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint8_t *input = bf_padded_input(step, arena, share, &part);
  int8_t *expanded = bf_expanded_panels(step, arena, share);
  size_t num_blocks;
  for (size_t block = part.blocks.begin; block < part.blocks.end; block += num_blocks) {
    bf_tile_place place = bf_block_place(step, block);
    const uint8_t *image = input + place.group * bf_image_bytes(step);
    num_blocks = bf_tile_blocks(step, block, part.blocks.end, tiles);
    place.panel_bytes = step->panel_bytes;
    if (expand) {
      bf_expand_panels(step, block, num_blocks, expanded, expand);
      place.panel = expanded;
      place.panel_bytes = ((const bf_packed *)step->extra)->expanded_bytes;
    }
    place.at += part.rows.begin * step->ow * step->o;
    const size_t of_last = bf_block_place(step, block + num_blocks - 1).count;
    place.count = of_last + (num_blocks - 1) * BF_LANES;
    if (tiles.quad && num_blocks == 4) {
      bf_convolve_block(step, arena, image, part.rows, place, tiles.quad, tiles.pair_pixels);
    } else if (num_blocks == 2) {
      bf_convolve_block(step, arena, image, part.rows, place, tiles.pair, tiles.pair_pixels);
    } else {
      bf_convolve_block(step, arena, image, part.rows, place, tiles.single, tiles.single_pixels);
    }
  }
}

#endif
