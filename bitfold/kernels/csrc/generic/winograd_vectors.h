/* One-dimensional Winograd transforms on vectors of bytes and of 32-bit words, and the word form of
 * the recombination. Define BF_VECTOR_BYTES first. Everything wraps around: only what
 * layouts/winograd.py proves to fit is ever looked at.
 */
#ifndef BITFOLD_WINOGRAD_VECTORS_H
#define BITFOLD_WINOGRAD_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BF_FORCED static inline __attribute__((always_inline))

typedef uint8_t bf_bytes __attribute__((vector_size(BF_VECTOR_BYTES)));
typedef uint32_t bf_words __attribute__((vector_size(BF_VECTOR_BYTES)));
typedef int32_t bf_signed_words __attribute__((vector_size(BF_VECTOR_BYTES)));

enum { BF_VECTOR_WORDS = BF_VECTOR_BYTES / 4, BF_MOST_INPUTS = 6, BF_MOST_OUTPUTS = 4 };

BF_FORCED bf_bytes bf_load_bytes(const uint8_t *p) {
  bf_bytes value;
  memcpy(&value, p, sizeof value);
  return value;
}

BF_FORCED bf_words bf_load_words(const int32_t *p) {
  bf_words value;
  memcpy(&value, p, sizeof value);
  return value;
}

BF_FORCED void bf_store_words(bf_words value, int32_t *p) { memcpy(p, &value, sizeof value); }

/* z = B x for tiles of m outputs. */
BF_FORCED void bf_transform_inputs(const size_t m, const bf_bytes *x, bf_bytes *z) {
  if (m == 2) {
    z[0] = x[0] - x[2];
    z[1] = x[1] + x[2];
    z[2] = x[2] - x[1];
    z[3] = x[3] - x[1];
  } else if (m == 3) {
    const bf_bytes near = x[0] - x[2], far = x[3] - x[1], twice = far + far;
    const bf_bytes turn = x[1] - x[2];
    z[0] = near + near + far;
    z[1] = far - x[1] - x[2];
    z[2] = far + turn + turn + turn;
    z[3] = far;
    z[4] = x[4] - x[2] - twice;
  } else {
    const bf_bytes x1 = x[1] + x[1], x2 = x[2] + x[2], near = x[0] - x[2];
    const bf_bytes even = x[4] - x2 - x2, odd = x[3] - x1 - x1;
    const bf_bytes outer = x[4] - x[2], inner = x[3] - x[1], twice = inner + inner;
    const bf_bytes near2 = near + near;
    z[0] = near2 + near2 + outer;
    z[1] = even + odd;
    z[2] = even - odd;
    z[3] = outer + twice;
    z[4] = outer - twice;
    z[5] = x[5] - x[3] - twice - twice;
  }
}

/* y = A' s for tiles of m outputs; the sums `s` hold their scales. */
BF_FORCED void bf_transform_sums(const size_t m, const bf_words *s, bf_words *y) {
  const bf_words even = s[1] + s[2], odd = s[1] - s[2];
  if (m == 2) {
    y[0] = s[0] + even;
    y[1] = odd + s[3];
  } else if (m == 3) {
    y[0] = s[0] + even + s[3];
    y[1] = odd + s[3] + s[3];
    y[2] = even + (s[3] << 2) + s[4];
  } else {
    const bf_words even2 = even + even, odd2 = odd + odd;
    const bf_words far = s[3] + s[4], turn = s[3] - s[4], turn2 = turn + turn;
    y[0] = s[0] + even2 + far;
    y[1] = odd2 + turn2;
    y[2] = even2 + (far << 2);
    y[3] = odd2 + ((turn2 + s[5]) << 2);
  }
}

#endif
