/* Window maximum over whole registers of channels, u8 or int32; a window is clipped to the input.
 */
#include "generic/share.h"
#include "isa/avx2.h"

/* The part of a window that lies in the input: rows and columns of it. */
typedef struct bf_clip {
  bf_span rows, columns;
} bf_clip;

BF_INLINE bf_span bf_clip_edge(size_t first, size_t kernel, size_t edge, size_t size) {
  const size_t end = first + kernel; /* counted from the padded edge */
  return (bf_span){first > edge ? first - edge : 0, end < edge + size ? end - edge : size};
}

BF_INLINE __m256i bf_load_vector(const uint8_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE __m256i bf_max_vector(__m256i a, __m256i b, const size_t is_wide) {
  return is_wide ? _mm256_max_epi32(a, b) : _mm256_max_epu8(a, b);
}

/* Stores `count` bytes, at most 32. */
BF_INLINE void bf_store_vector(uint8_t *out, __m256i value, size_t count) {
  if (count >= 32) {
    _mm256_storeu_si256((__m256i *)(void *)out, value);
  } else {
    uint8_t block[32];
    _mm256_storeu_si256((__m256i *)(void *)block, value);
    memcpy(out, block, count);
  }
}

/* Maximum of one column of the window, from its first row's byte. */
BF_INLINE __m256i bf_max_column(const uint8_t *x, size_t num_rows, size_t pitch,
                                const size_t is_wide) {
  __m256i best = bf_load_vector(x);
  for (size_t i = 1; i < num_rows; i++) {
    best = bf_max_vector(best, bf_load_vector(x + i * pitch), is_wide);
  }
  return best;
}

/* One row of outputs in one register of channels, which begins at byte `at` of every pixel. A
 * column that two neighbouring windows share is not read twice where windows overlap by one.
 */
BF_INLINE void bf_max_row(const bf_step *step, uint8_t *arena, size_t row, size_t at,
                          const size_t is_wide) {
  const size_t pixel_bytes = step->c * (is_wide ? 4 : 1), pitch = step->w * pixel_bytes;
  const bf_span rows = bf_clip_edge(row * step->stride_h, step->kernel_h, step->top, step->h);
  const uint8_t *x = arena + step->x + rows.begin * pitch + at;
  uint8_t *out = arena + step->out + row * step->ow * pixel_bytes + at;
  const size_t num_rows = rows.end - rows.begin;
  const size_t overlaps = step->kernel_w == step->stride_w + 1;
  __m256i last = _mm256_setzero_si256();
  size_t known = SIZE_MAX; /* the column that `last` is the maximum of */
  for (size_t column = 0; column < step->ow; column++) {
    const bf_span span = bf_clip_edge(column * step->stride_w, step->kernel_w, step->left, step->w);
    __m256i best = last;
    size_t j = span.begin;
    if (!overlaps || j != known) {
      best = bf_max_column(x + j * pixel_bytes, num_rows, pitch, is_wide);
    }
    for (j++; j < span.end; j++) {
      last = bf_max_column(x + j * pixel_bytes, num_rows, pitch, is_wide);
      best = bf_max_vector(best, last, is_wide);
      known = j;
    }
    bf_store_vector(out + column * pixel_bytes, best, pixel_bytes - at);
  }
}

void bf_maxpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_maxpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  const bf_span rows = bf_part(step->oh, share);
  const size_t is_wide = step->x_kind == BF_I32;
  const size_t pixel_bytes = step->c * (is_wide ? 4 : 1);
  for (size_t row = rows.begin; row < rows.end; row++) {
    for (size_t at = 0; at < pixel_bytes; at += 32) {
      if (is_wide) {
        bf_max_row(step, arena, row, at, 1);
      } else {
        bf_max_row(step, arena, row, at, 0);
      }
    }
  }
}
