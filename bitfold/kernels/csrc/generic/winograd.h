/* Exact integer Winograd convolutions (docs/arithmetic.md): the loops around an ISA's sums of
 * products. Blocks of tiles are transformed into scratch, groups of six tiles at a time multiplied
 * with the panels of one block of 16 output channels, transformed back and finished.
 *
 * Define BF_VECTOR_BYTES, and bf_finish_rows and bf_sum_bytes of the ISA, first.
 */
#ifndef BITFOLD_WINOGRAD_H
#define BITFOLD_WINOGRAD_H

#include "generic/epilogue.h"
#include "generic/share.h"
#include "generic/winograd_vectors.h"

enum { BF_GROUP_TILES = 6, BF_MOST_POSITIONS = 36, BF_TAPS = 3 };

/* Tiles of one group, against the blocks of 16 channels that an ISA takes at a time. */
typedef struct bf_product {
  const bf_winograd *winograd;
  size_t num_positions, num_tiles;
  const uint8_t *inputs; /* (positions, 6, pitch) */
  const int8_t *panel;   /* (positions, quads, 16, 4) of the first block */
  const int32_t *starts; /* (positions, 16) of the first block */
  size_t panel_bytes;
  int32_t *sums; /* (blocks, positions, 6, 16) */
} bf_product;

/* Sums of products of one block of channels, or of two that follow each other; ISA-specific. */
typedef void (*bf_multiplier)(const bf_product *restrict product);

/* What a share works on, and where. Tiles count in row-major order. */
typedef struct bf_tiling {
  const bf_step *step;
  const bf_winograd *winograd;
  uint8_t *arena, *scratch;
  size_t in_h, in_w;    /* inputs of a tile */
  bf_span tiles;        /* of the share */
  bf_span blocks;       /* of 16 output channels */
  size_t rows_ready_of; /* row of tiles whose vertically transformed rows are in scratch */
} bf_tiling;

/* Tiles are split where there are enough, else blocks of channels. */
static inline bf_tiling bf_share_tiles(const bf_step *restrict step, uint8_t *restrict arena,
                                       const bf_share *restrict share) {
  const bf_winograd *winograd = step->extra;
  const size_t num_tiles = winograd->tiles_y * winograd->tiles_x;
  const size_t num_blocks = step->group_lanes / BF_LANES;
  bf_tiling tiling = {.step = step,
                      .winograd = winograd,
                      .arena = arena,
                      .scratch = bf_scratch(step, arena, share),
                      .in_h = winograd->tile_h + BF_TAPS - 1,
                      .in_w = winograd->tile_w + BF_TAPS - 1,
                      .tiles = {0, num_tiles},
                      .blocks = {0, num_blocks},
                      .rows_ready_of = winograd->tiles_y};
  if (num_tiles >= 2 * BF_GROUP_TILES * share->count || num_blocks < share->count) {
    tiling.tiles = bf_part(num_tiles, share);
  } else {
    tiling.blocks = bf_part(num_blocks, share);
  }
  return tiling;
}

/* First byte of row `y` of the padded input, behind the left padding. */
static inline const uint8_t *bf_input_row(const bf_tiling *restrict tiling, size_t y) {
  const bf_step *step = tiling->step;
  if (y < step->top || y >= step->top + step->h) {
    return tiling->scratch + tiling->winograd->fill_at;
  }
  return tiling->arena + step->x + (y - step->top) * step->w * step->c;
}

/* Pixels of a transformed row: what the tiles of a row read, at least the padded input. */
static inline size_t bf_row_pixels(const bf_tiling *restrict tiling) {
  return tiling->winograd->tiles_x * tiling->winograd->tile_w + BF_TAPS - 1;
}

BF_FORCED void bf_transform_columns(const bf_tiling *restrict tiling, const uint8_t *const *rows,
                                    const size_t m) {
  const bf_winograd *winograd = tiling->winograd;
  const bf_step *step = tiling->step;
  const size_t num_bytes = step->w * step->c, left = step->left * step->c;
  uint8_t *out = tiling->scratch + winograd->rows_at + left;
  for (size_t at = 0; at < num_bytes; at += BF_VECTOR_BYTES) {
    bf_bytes x[BF_MOST_INPUTS], z[BF_MOST_INPUTS];
    for (size_t i = 0; i < m + 2; i++) {
      x[i] = bf_load_bytes(rows[i] + at);
    }
    bf_transform_inputs(m, x, z);
    for (size_t i = 0; i < m + 2; i++) {
      memcpy(out + i * winograd->row_bytes + at, &z[i], sizeof z[i]);
    }
  }
}

/* Vertically transformed rows of the row of tiles `ty`, with their padding left and right. */
static inline void bf_transform_rows(const bf_tiling *restrict tiling, const uint8_t *const *rows) {
  const bf_winograd *winograd = tiling->winograd;
  const bf_step *step = tiling->step;
  const size_t left = step->left * step->c, held = left + step->w * step->c;
  if (winograd->tile_h == 2) {
    bf_transform_columns(tiling, rows, 2);
  } else if (winograd->tile_h == 3) {
    bf_transform_columns(tiling, rows, 3);
  } else {
    bf_transform_columns(tiling, rows, 4);
  }
  for (size_t i = 0; i < tiling->in_h; i++) {
    uint8_t *row = tiling->scratch + winograd->rows_at + i * winograd->row_bytes;
    memset(row, winograd->borders[i], left);
    memset(row + held, winograd->borders[i], bf_row_pixels(tiling) * step->c - held);
  }
}

/* Tile `tx` of the transformed rows into slot `slot` of its group. */
BF_FORCED void bf_transform_tile(const bf_tiling *restrict tiling, size_t tx, uint8_t *restrict out,
                                 const size_t m) {
  const bf_winograd *winograd = tiling->winograd;
  const size_t depth = tiling->step->c, pitch = winograd->pitch;
  const uint8_t *rows = tiling->scratch + winograd->rows_at + tx * m * depth;
  for (size_t i = 0; i < tiling->in_h; i++) {
    const uint8_t *offsets = winograd->offsets + i * (m + 2) * 64;
    for (size_t at = 0; at < pitch; at += BF_VECTOR_BYTES) {
      bf_bytes x[BF_MOST_INPUTS], z[BF_MOST_INPUTS];
      for (size_t j = 0; j < m + 2; j++) {
        x[j] = bf_load_bytes(rows + j * depth + at);
      }
      bf_transform_inputs(m, x, z);
      for (size_t j = 0; j < m + 2; j++) {
        z[j] += bf_load_bytes(offsets + j * 64);
        memcpy(out + (i * (m + 2) + j) * BF_GROUP_TILES * pitch + at, &z[j], sizeof z[j]);
      }
    }
    rows += winograd->row_bytes;
  }
}

/* Place of tile `tile` of a block among the transformed ones. */
static inline uint8_t *bf_tile_inputs(const bf_tiling *restrict tiling, size_t tile) {
  const size_t positions = tiling->in_h * tiling->in_w;
  const size_t group = tile / BF_GROUP_TILES, slot = tile % BF_GROUP_TILES;
  return tiling->scratch + tiling->winograd->transformed_at +
         (group * positions * BF_GROUP_TILES + slot) * tiling->winograd->pitch;
}

/* Channel sums of the pixels of one input row and its padding. */
static inline void bf_sum_pixels(const bf_tiling *restrict tiling, const uint8_t *restrict row,
                                 int32_t *restrict sums) {
  const bf_step *step = tiling->step;
  const size_t held = step->left + step->w, pixels = bf_row_pixels(tiling);
  const int32_t padding = (int32_t)(step->fill * step->c);
  for (size_t j = 0; j < step->left; j++) {
    sums[j] = padding;
  }
  for (size_t j = 0; j < step->w; j++) {
    sums[step->left + j] = bf_sum_bytes(row + j * step->c, step->c);
  }
  for (size_t j = held; j < pixels; j++) {
    sums[j] = padding;
  }
}

/* Sums of all windows of the row of tiles `ty`, whose inputs are `rows`. */
static inline void bf_sum_windows(const bf_tiling *restrict tiling, const uint8_t *const *rows,
                                  size_t ty) {
  const bf_winograd *winograd = tiling->winograd;
  const size_t pixels = bf_row_pixels(tiling), width = winograd->tiles_x * winograd->tile_w;
  int32_t *sums = (int32_t *)(void *)(tiling->scratch + winograd->sums_at);
  int32_t *windows = (int32_t *)(void *)(tiling->scratch + winograd->windows_at);
  for (size_t i = 0; i < tiling->in_h; i++) {
    bf_sum_pixels(tiling, rows[i], sums + i * pixels);
  }
  for (size_t i = 0; i < winograd->tile_h; i++) {
    int32_t *columns = sums + i * pixels; /* become sums of three rows */
    int32_t *out = windows + (ty * winograd->tile_h + i) * width;
    for (size_t j = 0; j < pixels; j++) {
      columns[j] += columns[pixels + j] + columns[2 * pixels + j];
    }
    for (size_t j = 0; j < width; j++) {
      out[j] = columns[j] + columns[j + 1] + columns[j + 2];
    }
  }
}

/* Vertically transformed rows, and sums of windows, for the row of tiles `ty`. */
static inline void bf_make_rows(bf_tiling *restrict tiling, size_t ty) {
  const uint8_t *rows[BF_MOST_INPUTS];
  if (tiling->rows_ready_of == ty) {
    return;
  }
  for (size_t i = 0; i < tiling->in_h; i++) {
    rows[i] = bf_input_row(tiling, ty * tiling->winograd->tile_h + i);
  }
  bf_transform_rows(tiling, rows);
  if (tiling->winograd->window_factor != 0) {
    bf_sum_windows(tiling, rows, ty);
  }
  tiling->rows_ready_of = ty;
}

/* The given tiles into scratch. */
static inline void bf_transform_block(bf_tiling *restrict tiling, bf_span tiles) {
  const size_t tiles_x = tiling->winograd->tiles_x;
  for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
    const size_t tx = tile % tiles_x;
    uint8_t *out = bf_tile_inputs(tiling, tile - tiles.begin);
    bf_make_rows(tiling, tile / tiles_x);
    if (tiling->winograd->tile_w == 2) {
      bf_transform_tile(tiling, tx, out, 2);
    } else if (tiling->winograd->tile_w == 3) {
      bf_transform_tile(tiling, tx, out, 3);
    } else {
      bf_transform_tile(tiling, tx, out, 4);
    }
  }
}

/* Vertical half of the output transform, in place: row i of the tile becomes output row i. */
BF_FORCED void bf_gather_columns(int32_t *restrict sums, size_t in_w, size_t num_tiles,
                                 const size_t m) {
  const size_t row = in_w * BF_GROUP_TILES * BF_LANES;
  for (size_t j = 0; j < in_w; j++) {
    int32_t *column = sums + j * BF_GROUP_TILES * BF_LANES;
    for (size_t at = 0; at < num_tiles * BF_LANES; at += BF_VECTOR_WORDS) {
      bf_words s[BF_MOST_INPUTS], y[BF_MOST_OUTPUTS];
      for (size_t i = 0; i < m + 2; i++) {
        s[i] = bf_load_words(column + i * row + at);
      }
      bf_transform_sums(m, s, y);
      for (size_t i = 0; i < m; i++) {
        bf_store_words(y[i], column + i * row + at);
      }
    }
  }
}

/* Output row of one tile: m accumulators of 16 lanes, before the sums of windows are added. */
BF_FORCED void bf_gather_row(const bf_tiling *restrict tiling, const int32_t *restrict sums,
                             const int32_t *restrict bias, int32_t *restrict acc, const size_t m) {
  const uint32_t multiplier = (uint32_t)tiling->winograd->multiplier;
  const int32_t shift = (int32_t)tiling->winograd->shift;
  for (size_t at = 0; at < BF_LANES; at += BF_VECTOR_WORDS) {
    bf_words s[BF_MOST_INPUTS], y[BF_MOST_OUTPUTS];
    for (size_t j = 0; j < m + 2; j++) {
      s[j] = bf_load_words(sums + j * BF_GROUP_TILES * BF_LANES + at);
    }
    bf_transform_sums(m, s, y);
    for (size_t j = 0; j < m; j++) {
      const bf_words quotient = (bf_words)((bf_signed_words)y[j] >> shift) * multiplier;
      bf_store_words(quotient + bf_load_words(bias + at), acc + j * BF_LANES + at);
    }
  }
}

/* Adds window_factor times the sum of its window to every pixel. */
static inline void bf_add_windows(const int32_t *restrict windows, uint32_t factor,
                                  size_t num_pixels, int32_t *restrict acc) {
  for (size_t i = 0; i < num_pixels; i++) {
    const uint32_t term = factor * (uint32_t)windows[i];
    for (size_t at = 0; at < BF_LANES; at += BF_VECTOR_WORDS) {
      int32_t *p = acc + i * BF_LANES + at;
      bf_store_words(bf_load_words(p) + term, p);
    }
  }
}

/* Tiles tile … tile + count - 1, all in one row of tiles; `sums` are those of the first. */
static inline void bf_finish_run(const bf_tiling *restrict tiling, const int32_t *restrict sums,
                                 size_t block, size_t tile, size_t count) {
  const bf_winograd *winograd = tiling->winograd;
  const bf_step *step = tiling->step;
  const size_t tile_h = winograd->tile_h, tile_w = winograd->tile_w;
  const size_t width = winograd->tiles_x * tile_w, row = tile / winograd->tiles_x;
  const size_t x = tile % winograd->tiles_x * tile_w, left = step->ow - x;
  const size_t lane = block * BF_LANES, lanes = step->group_o - lane;
  const int32_t *windows = (const int32_t *)(const void *)(tiling->scratch + winograd->windows_at);
  int32_t acc[BF_GROUP_TILES * BF_MOST_OUTPUTS * BF_LANES];
  bf_rows rows = {.acc = acc,
                  .stride = BF_LANES,
                  .num_pixels = left < count * tile_w ? left : count * tile_w,
                  .lane = lane,
                  .count = lanes < BF_LANES ? lanes : BF_LANES};
  for (size_t i = 0; i < tile_h; i++) {
    const size_t y = row * tile_h + i;
    const int32_t *of_row = sums + i * tiling->in_w * BF_GROUP_TILES * BF_LANES;
    if (y >= step->oh) {
      return;
    }
    for (size_t k = 0; k < count; k++, of_row += BF_LANES) {
      int32_t *of_tile = acc + k * tile_w * BF_LANES;
      if (tile_w == 2) {
        bf_gather_row(tiling, of_row, step->bias + lane, of_tile, 2);
      } else if (tile_w == 3) {
        bf_gather_row(tiling, of_row, step->bias + lane, of_tile, 3);
      } else {
        bf_gather_row(tiling, of_row, step->bias + lane, of_tile, 4);
      }
    }
    if (winograd->window_factor != 0) {
      bf_add_windows(windows + (row * tile_h + i) * width + x, (uint32_t)winograd->window_factor,
                     rows.num_pixels, acc);
    }
    rows.at = (y * step->ow + x) * step->o + lane;
    BF_FINISH_ROWS(step, tiling->arena, &rows);
  }
}

/* Transforms the sums of a group back, and finishes its tiles row of tiles by row of tiles. */
static inline void bf_finish_group(const bf_tiling *restrict tiling, int32_t *restrict sums,
                                   size_t block, bf_span tiles) {
  const size_t tiles_x = tiling->winograd->tiles_x, num_tiles = tiles.end - tiles.begin;
  if (tiling->winograd->tile_h == 2) {
    bf_gather_columns(sums, tiling->in_w, num_tiles, 2);
  } else if (tiling->winograd->tile_h == 3) {
    bf_gather_columns(sums, tiling->in_w, num_tiles, 3);
  } else {
    bf_gather_columns(sums, tiling->in_w, num_tiles, 4);
  }
  for (size_t tile = tiles.begin; tile < tiles.end;) {
    const size_t row_end = (tile / tiles_x + 1) * tiles_x;
    const size_t end = row_end < tiles.end ? row_end : tiles.end;
    bf_finish_run(tiling, sums + (tile - tiles.begin) * BF_LANES, block, tile, end - tile);
    tile = end;
  }
}

/* One or two blocks of channels on a block of tiles. */
BF_FORCED void bf_multiply_block(const bf_tiling *restrict tiling, bf_span tiles, bf_span blocks,
                                 const bf_multiplier multiply) {
  const bf_winograd *winograd = tiling->winograd;
  const size_t positions = tiling->in_h * tiling->in_w, panel_bytes = tiling->step->panel_bytes;
  int32_t sums[2 * BF_MOST_POSITIONS * BF_GROUP_TILES * BF_LANES];
  for (size_t tile = tiles.begin; tile < tiles.end; tile += BF_GROUP_TILES) {
    const size_t left = tiles.end - tile;
    const size_t count = left < BF_GROUP_TILES ? left : BF_GROUP_TILES;
    const bf_product product = {
        .winograd = winograd,
        .num_positions = positions,
        .num_tiles = count,
        .inputs = bf_tile_inputs(tiling, tile - tiles.begin),
        .panel = (const int8_t *)tiling->step->weight + blocks.begin * panel_bytes,
        .starts = winograd->starts + blocks.begin * positions * BF_LANES,
        .panel_bytes = panel_bytes,
        .sums = sums};
    multiply(&product);
    for (size_t block = blocks.begin; block < blocks.end; block++) {
      int32_t *of_block = sums + (block - blocks.begin) * positions * BF_GROUP_TILES * BF_LANES;
      bf_finish_group(tiling, of_block, block, (bf_span){tile, tile + count});
    }
  }
}

/* The share's tiles; `two` takes pairs of blocks of channels, `one` what is left. */
BF_FORCED void bf_convolve_tiles(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share, const bf_multiplier one,
                                 const bf_multiplier two) {
  bf_tiling tiling = bf_share_tiles(step, arena, share);
  const size_t pair = two ? 2 : 1, block_tiles = tiling.winograd->block_tiles;
  if (tiling.blocks.begin == tiling.blocks.end) {
    return;
  }
  memset(tiling.scratch + tiling.winograd->fill_at, (int)step->fill, step->w * step->c);
  for (size_t tile = tiling.tiles.begin; tile < tiling.tiles.end; tile += block_tiles) {
    const size_t left = tiling.tiles.end - tile;
    const bf_span tiles = {tile, tile + (left < block_tiles ? left : block_tiles)};
    bf_transform_block(&tiling, tiles);
    for (size_t block = tiling.blocks.begin; block < tiling.blocks.end; block += pair) {
      if (tiling.blocks.end - block < pair) {
        bf_multiply_block(&tiling, tiles, (bf_span){block, block + 1}, one);
      } else {
        bf_multiply_block(&tiling, tiles, (bf_span){block, block + pair}, two ? two : one);
      }
    }
  }
}

#endif
