/* Public interface of the kernel library.
 *
 * Plain declarations: Python's cffi parses this very file after dropping the preprocessor lines.
 * Buffers lie in one arena of bytes; the fields `x`, `y`, `out` and `scratch` are byte offsets into
 * it. bitfold/kernels/packing.py describes every constant array; "lane" is defined there.
 */
#ifndef BITFOLD_KERNELS_H
#define BITFOLD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum bf_element { BF_U8 = 0, BF_I32 = 1, BF_F32 = 2 };

/* What happens to an accumulator: thresholds, fixed-point update, nothing. */
enum bf_epilogue_kind { BF_TO_INDICES = 0, BF_TO_WIDE = 1, BF_TO_ACCUMULATORS = 2 };

/* How a block of 16 lanes evaluates its thresholds; all forms give the same indices. */
enum bf_index_form { BF_COMPARE = 0, BF_LINE32 = 1, BF_LINE64 = 2 };

/* How a fixed-point update is evaluated: proven to fit 32 bits, 32x32 -> 64 bits, 64 bits. In the
 * first two, y fits 32 bits before it is bent or cut off at 0.
 */
enum bf_wide_form { BF_WIDE32 = 0, BF_WIDE64 = 1, BF_WIDE_ANY = 2 };

/* Per-lane arrays are padded to whole blocks of 16 lanes. */
typedef struct bf_epilogue {
  size_t kind;

  /* BF_TO_INDICES: index = #{j : table[block][j][lane] <= sign[lane] * acc} */
  size_t num_thresholds;
  const int32_t *table;
  const int32_t *sign;
  const uint8_t *index_form; /* one a block */
  const int32_t *low;        /* lines: index = (clamp(acc, low, high) * slope + intercept) >> */
  const int32_t *high;
  const int32_t *slope;
  const int64_t *intercept;
  const int32_t *index_shift;
  /* 1 to 3 thresholds less the bias, [block][j][lanes 0-3 8-11 4-7 12-15], for rows whose sums of
   * index * weight provably fit 16 bits: index = #{j : short_table[..] <= sign[lane] * sum}. NULL
   * for others.
   */
  const int16_t *short_table;

  /* BF_TO_WIDE: y = (multiplier * acc + offset) >> shift; the offset includes the rounding half */
  size_t wide_form;
  const int64_t *multiplier;
  const int64_t *offset;
  size_t shift;
  size_t has_relu;                    /* y = max(y, 0) */
  const int64_t *negative_multiplier; /* NULL without one */
  size_t negative_shift;
  size_t has_add;
  size_t add; /* int32 buffer of the shape of `out`, added last */
} bf_epilogue;

/* `num_quads` groups of four consecutive input bytes at `offset` from the pixel. `flush` tells
 * kernels with 16-bit sums to widen them behind this segment; behind the last one they always do.
 */
typedef struct bf_segment {
  size_t offset;
  size_t num_quads;
  size_t flush;
} bf_segment;

/* Layout `packed`: indices of `bits` bits, which a kernel expands to a panel of int8 codes. */
typedef struct bf_packed {
  size_t bits;           /* 1 to 4 */
  size_t expanded_bytes; /* of one block, a multiple of 256 */
  const int8_t *table;   /* 16 codes by index */
} bf_packed;

/* Layout `dictionary`: sums of the products of `group` channels, by look-up.
 * acc = bias + factor * (sum of table[code of the inputs][index of the weights])
 */
typedef struct bf_dictionary {
  size_t group;         /* channels that one code, and one weight index, stands for */
  size_t levels;        /* of the input: code = sum of index j times levels^j */
  size_t pixel_groups;  /* codes of one pixel, even */
  size_t entries;       /* of a row of the table: 16 or 64 bytes */
  size_t vector_blocks; /* of 16 channels to a vector of weight indices: 2 or 4 */
  size_t flush;         /* look-ups that a sum of bytes holds, even */
  int32_t factor;
  const uint8_t *table;
} bf_dictionary;

/* How a word of an input plane meets one of a weight plane. Weights of two or three levels around
 * zero take one operation a plane of the input: ones of `either & (x ^ negative)`, less a constant.
 */
enum bf_plane_op { BF_PLANE_AND = 0, BF_PLANE_XOR = 1, BF_PLANE_SELECT = 2 };

/* Layout `bitserial`. */
typedef struct bf_planes {
  size_t op;        /* AND: planes of indices; XOR: negative; SELECT: either, then negative */
  size_t bit_depth; /* group_c rounded up to a multiple of 8 */
  size_t row_words; /* 32-bit words of one plane of a padded row */
} bf_planes;

/* How a depthwise row adds up: in 32 bits; in 16; in 16 with thresholds that compare such sums. */
enum bf_depthwise_form { BF_DEPTHWISE_WIDE = 0, BF_DEPTHWISE_SHORT = 1, BF_DEPTHWISE_BOUNDS = 2 };

/* Layout `depthwise`. index = #{j : bounds[register of channels][j][channel] < sum} */
typedef struct bf_depthwise {
  size_t form;
  const int16_t *bounds;
} bf_depthwise;

/* Layout `vector`: groups of 8 / bits quads; `flush` of them fit 16-bit sums, 0: pairs of codes. */
typedef struct bf_vector {
  size_t bits, num_groups, flush;
} bf_vector;

/* Layout `winograd`. A position is one of the products that make a tile of outputs. Places
 * are offsets into a share's scratch area.
 */
typedef struct bf_winograd {
  size_t tile_h, tile_w;   /* outputs of a tile: 2, 3 or 4 rows and columns */
  size_t tiles_y, tiles_x; /* tiles of the image */
  size_t block_tiles;      /* tiles that are transformed together, whole groups of 6 */
  size_t num_quads;
  size_t pitch;           /* bytes of one transformed input: its channels, to whole vectors */
  size_t row_bytes;       /* of a vertically transformed row */
  size_t fill_at;         /* a row of padding */
  size_t rows_at;         /* vertically transformed rows of one row of tiles */
  size_t sums_at;         /* int32 channel sums of its pixels */
  size_t windows_at;      /* int32 sums of all windows */
  size_t transformed_at;  /* (groups of 6 tiles, positions, 6, pitch) */
  const uint8_t *offsets; /* (positions, 64): make transformed inputs unsigned */
  const uint8_t *borders; /* vertically transformed padding, a byte a row */
  const int32_t *starts;  /* (blocks, positions, 16): take the offsets out again */
  const int32_t *scales;  /* factor of the sum of products, a position */
  const size_t *flushes;  /* quads between flushes of 16-bit sums, a position */
  size_t shift;           /* acc = bias + (sum >> shift) * multiplier + window_factor * window */
  int32_t multiplier, window_factor;
} bf_winograd;

/* A thread's part of a step: `index` of `count`. Alone: 0 of 1. */
typedef struct bf_share {
  size_t index, count;
} bf_share;

typedef struct bf_step bf_step;
typedef void (*bf_kernel)(const bf_step *step, uint8_t *arena, const bf_share *share);

struct bf_step {
  bf_kernel kernel;
  size_t x, y, out;
  size_t scratch, scratch_bytes; /* one area of so many bytes a share, one behind the other */
  size_t x_kind;                 /* bf_element */
  size_t h, w, c;                /* input */
  size_t oh, ow, o;              /* output */
  size_t kernel_h, kernel_w, stride_h, stride_w, top, left;
  size_t x_start, y_start, y_c;     /* add: first channels, channels of y */
  size_t out_start, count, repeats; /* copy: channels from x_start on, so many times */
  int32_t x_lo, x_step;             /* code = x_lo + x_step * index */

  /* convolutions; the sizes are per group */
  size_t groups, group_c, group_o;
  size_t group_lanes; /* group_o rounded up to 16 */
  size_t has_copy;    /* input is copied to scratch as (groups, padded_h, padded_w, group_c) */
  size_t padded_h, padded_w;
  size_t fill; /* index of code 0 */
  const void *weight;
  size_t panel_bytes; /* of one block of 16 output channels, all digits */
  size_t digits;      /* of wide weights, one panel each, the highest first; 0 as 1 */
  const int32_t *bias;
  const bf_segment *segments;
  size_t num_segments;
  size_t has_flushes; /* some segment asks for a flush */

  /* bit-serial convolutions */
  size_t x_planes, w_planes, num_words; /* 32-bit words of one plane of a window */
  int32_t w_lo, w_step;

  const float *scale; /* dequantize */
  const void *extra;  /* a struct of the row's layout, NULL where it needs none */
  bf_epilogue epilogue;
};

typedef struct bf_row {
  const char *op;
  const char *layout;
  const char *isa;
  const char *needs; /* feature names, separated by spaces */
  const char *symbol;
  bf_kernel kernel;
} bf_row;

/* Rows, best first within an op; the last one has op == NULL. */
const bf_row *bf_kernel_table(void);

/* Bits of the features that the host has; bit i is bf_feature_name(i), NULL past the end. */
uint64_t bf_host_isa(void);
const char *bf_feature_name(size_t bit);

/* SHA-256 of this file as it was when the library was built, in hexadecimal, and sizeof(bf_step): a
 * loader compares them with the file that it has, since it reads every struct as that file says.
 */
const char *bf_abi(void);
size_t bf_step_bytes(void);

/* Threads that wait for work. NULL where the system gives none, and for fewer than two. */
typedef struct bf_pool bf_pool;
bf_pool *bf_pool_start(size_t num_threads);
void bf_pool_stop(bf_pool *pool);

/* All steps, in order, on one image that already lies in the arena. Every step is shared among the
 * caller and the pool's other threads; the caller works alone without a pool, or while the pool
 * works for somebody else. The arena holds a scratch area for each of the pool's threads.
 */
void bf_run_plan(const bf_step *steps, size_t num_steps, uint8_t *arena, bf_pool *pool);

typedef struct bf_batch {
  size_t num_images, image_bytes, input_offset, logit_bytes, output_offset;
} bf_batch;

/* For each image: copy it into the arena, run the plan, copy the logits out. */
void bf_run_batch(const bf_step *steps, size_t num_steps, const bf_batch *batch,
                  const uint8_t *images, uint8_t *logits, uint8_t *arena, bf_pool *pool);

/* What `bf_peak` counts: cycles of a core, or multiply-accumulates of 8-bit integers. */
enum bf_peak_kind {
  BF_PEAK_CYCLES = 0,
  BF_PEAK_PORTABLE = 1,
  BF_PEAK_AVX2 = 2,
  BF_PEAK_AVXVNNI = 3,
  BF_PEAK_AVX512VNNI = 4
};

/* Does `rounds` rounds of one kind in registers; how many were done, 0 where the CPU lacks it. */
uint64_t bf_peak(size_t kind, size_t rounds);

#endif
