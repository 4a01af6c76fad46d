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

/* Maximum of the rows and columns of `window`, in one register of channels at `x`. */
BF_INLINE __m256i bf_max_window(const uint8_t *x, const bf_clip *window, size_t pitch,
                                size_t pixel_bytes, const size_t is_wide) {
  __m256i best = bf_load_vector(x);
  for (size_t i = window->rows.begin; i < window->rows.end; i++) {
    for (size_t j = 0; j < window->columns.end - window->columns.begin; j++) {
      best = bf_max_vector(best, bf_load_vector(x + j * pixel_bytes), is_wide);
    }
    x += pitch;
  }
  return best;
}

/* One row of outputs, pixel by pixel: neighbouring bytes are read together. */
BF_INLINE void bf_max_row(const bf_step *step, uint8_t *arena, size_t row, const size_t is_wide) {
  const size_t pixel_bytes = step->c * (is_wide ? 4 : 1), pitch = step->w * pixel_bytes;
  bf_clip window = {.rows = bf_clip_edge(row * step->stride_h, step->kernel_h, step->top, step->h)};
  const uint8_t *x = arena + step->x + window.rows.begin * pitch;
  uint8_t *out = arena + step->out + row * step->ow * pixel_bytes;
  for (size_t column = 0; column < step->ow; column++) {
    window.columns = bf_clip_edge(column * step->stride_w, step->kernel_w, step->left, step->w);
    const uint8_t *first = x + window.columns.begin * pixel_bytes;
    for (size_t at = 0; at < pixel_bytes; at += 32) {
      const __m256i best = bf_max_window(first + at, &window, pitch, pixel_bytes, is_wide);
      bf_store_vector(out + at, best, pixel_bytes - at);
    }
    out += pixel_bytes;
  }
}

void bf_maxpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_maxpool_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  const bf_span rows = bf_part(step->oh, share);
  for (size_t row = rows.begin; row < rows.end; row++) {
    if (step->x_kind == BF_I32) {
      bf_max_row(step, arena, row, 1);
    } else {
      bf_max_row(step, arena, row, 0);
    }
  }
}
