/* Exact integer Winograd tiles by their matrices, one tile and one block of channels at a time. */
#include "generic/epilogue.h"
#include "generic/share.h"

enum { BF_TAPS = 3, BF_MOST_INPUTS = 6, BF_MOST_POSITIONS = 36 };

/* Rows of B and A' for tiles of 2, 3 and 4 outputs: bitfold/kernels/layouts/winograd_tiles.py. */
static const int32_t BF_INPUT_MATRIX[3][6][6] = {
    {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}},
    {{2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}},
    {{4, 0, -5, 0, 1, 0},
     {0, -4, -4, 1, 1, 0},
     {0, 4, -4, -1, 1, 0},
     {0, -2, -1, 2, 1, 0},
     {0, 2, -1, -2, 1, 0},
     {0, 4, 0, -5, 0, 1}}};
static const int32_t BF_SUM_MATRIX[3][6][4] = {
    {{1, 0}, {1, 1}, {1, -1}, {0, 1}},
    {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {1, 2, 4}, {0, 0, 1}},
    {{1, 0, 0, 0}, {2, 2, 2, 2}, {2, -2, 2, -2}, {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 4}}};

/* A tile: its first output, and which matrices it takes. */
typedef struct bf_tile_at {
  size_t y, x, in_h, in_w;
  const int32_t (*rows)[6], (*columns)[6];
  const int32_t (*row_sums)[4], (*column_sums)[4];
} bf_tile_at;

/* Index at (y, x, c) of the padded input. */
static inline uint8_t bf_index_at(const bf_step *restrict step, const uint8_t *restrict arena,
                                  size_t y, size_t x, size_t c) {
  if (y < step->top || y >= step->top + step->h || x < step->left || x >= step->left + step->w) {
    return (uint8_t)step->fill;
  }
  return arena[step->x + ((y - step->top) * step->w + x - step->left) * step->c + c];
}

/* inputs[position] of one channel, with their offsets. */
static inline void bf_transform_channel(const bf_step *restrict step, const uint8_t *restrict arena,
                                        const bf_tile_at *restrict tile, size_t c,
                                        int32_t *restrict inputs) {
  const bf_winograd *winograd = step->extra;
  for (size_t p = 0; p < tile->in_h * tile->in_w; p++) {
    const int32_t *row = tile->rows[p / tile->in_w], *column = tile->columns[p % tile->in_w];
    inputs[p] = winograd->offsets[p * 64];
    for (size_t i = 0; i < tile->in_h; i++) {
      for (size_t j = 0; j < tile->in_w; j++) {
        inputs[p] += row[i] * column[j] * bf_index_at(step, arena, tile->y + i, tile->x + j, c);
      }
    }
  }
}

/* sums[position][lane], scaled and without the offsets. */
static inline void bf_multiply_tile(const bf_step *restrict step, const uint8_t *restrict arena,
                                    const bf_tile_at *restrict tile, size_t block,
                                    uint32_t (*restrict sums)[BF_LANES]) {
  const bf_winograd *winograd = step->extra;
  const size_t positions = tile->in_h * tile->in_w;
  const int8_t *panel = (const int8_t *)step->weight + block * step->panel_bytes;
  for (size_t p = 0; p < positions; p++) {
    for (size_t i = 0; i < BF_LANES; i++) {
      sums[p][i] = (uint32_t)winograd->starts[(block * positions + p) * BF_LANES + i];
    }
  }
  for (size_t c = 0; c < step->c; c++) {
    int32_t inputs[BF_MOST_POSITIONS];
    bf_transform_channel(step, arena, tile, c, inputs);
    for (size_t p = 0; p < positions; p++) {
      const int8_t *weight = panel + (p * winograd->num_quads + c / 4) * 64 + c % 4;
      for (size_t i = 0; i < BF_LANES; i++) {
        sums[p][i] += (uint32_t)(winograd->scales[p] * inputs[p] * weight[4 * i]);
      }
    }
  }
}

/* Sum of all indices of the window of output (y, x). */
static inline uint32_t bf_window_sum(const bf_step *restrict step, const uint8_t *restrict arena,
                                     size_t y, size_t x) {
  uint32_t sum = 0;
  for (size_t k = 0; k < BF_TAPS * BF_TAPS; k++) {
    for (size_t c = 0; c < step->c; c++) {
      sum += bf_index_at(step, arena, y + k / BF_TAPS, x + k % BF_TAPS, c);
    }
  }
  return sum;
}

/* Output (i, j) of the tile. */
static inline void bf_finish_output(const bf_step *restrict step, uint8_t *restrict arena,
                                    const bf_tile_at *restrict tile, size_t block, size_t i,
                                    size_t j, uint32_t (*restrict sums)[BF_LANES]) {
  const bf_winograd *winograd = step->extra;
  const size_t y = tile->y + i, x = tile->x + j, lane = block * BF_LANES;
  const size_t left = step->group_o - lane;
  uint32_t window = 0;
  int32_t acc[BF_LANES];
  if (winograd->window_factor != 0) {
    window = (uint32_t)winograd->window_factor * bf_window_sum(step, arena, y, x);
  }
  for (size_t k = 0; k < BF_LANES; k++) {
    uint32_t sum = 0;
    for (size_t p = 0; p < tile->in_h * tile->in_w; p++) {
      const int32_t row = tile->row_sums[p / tile->in_w][i];
      sum += (uint32_t)(row * tile->column_sums[p % tile->in_w][j]) * sums[p][k];
    }
    const uint32_t quotient = (uint32_t)((int32_t)sum >> winograd->shift);
    acc[k] = (int32_t)((uint32_t)step->bias[lane + k] + quotient * (uint32_t)winograd->multiplier +
                       window);
  }
  bf_finish(step, arena, acc, lane, left < BF_LANES ? left : BF_LANES,
            (y * step->ow + x) * step->o + lane);
}

static inline void bf_convolve_tile(const bf_step *restrict step, uint8_t *restrict arena,
                                    const bf_tile_at *restrict tile) {
  const bf_winograd *winograd = step->extra;
  for (size_t block = 0; block < step->group_lanes / BF_LANES; block++) {
    uint32_t sums[BF_MOST_POSITIONS][BF_LANES];
    bf_multiply_tile(step, arena, tile, block, sums);
    for (size_t i = 0; i < winograd->tile_h && tile->y + i < step->oh; i++) {
      for (size_t j = 0; j < winograd->tile_w && tile->x + j < step->ow; j++) {
        bf_finish_output(step, arena, tile, block, i, j, sums);
      }
    }
  }
}

void bf_conv2d_winograd__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share);

void bf_conv2d_winograd__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share) {
  const bf_winograd *winograd = step->extra;
  const size_t of_rows = winograd->tile_h - 2, of_columns = winograd->tile_w - 2;
  const bf_span tiles = bf_part(winograd->tiles_y * winograd->tiles_x, share);
  for (size_t k = tiles.begin; k < tiles.end; k++) {
    const bf_tile_at tile = {.y = k / winograd->tiles_x * winograd->tile_h,
                             .x = k % winograd->tiles_x * winograd->tile_w,
                             .in_h = winograd->tile_h + BF_TAPS - 1,
                             .in_w = winograd->tile_w + BF_TAPS - 1,
                             .rows = BF_INPUT_MATRIX[of_rows],
                             .columns = BF_INPUT_MATRIX[of_columns],
                             .row_sums = BF_SUM_MATRIX[of_rows],
                             .column_sums = BF_SUM_MATRIX[of_columns]};
    bf_convolve_tile(step, arena, &tile);
  }
}
