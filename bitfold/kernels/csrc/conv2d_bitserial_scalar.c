/* Bit-serial convolution with a portable population count. */
#include "generic/conv2d_bitserial.h"

static inline uint32_t bf_popcount(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  return x * 0x01010101u >> 24;
}

static inline void bf_pack_scalar(const uint8_t *restrict bytes, size_t num_words,
                                  size_t num_planes, uint32_t *restrict planes) {
  for (size_t p = 0; p < num_planes; p++) {
    for (size_t k = 0; k < num_words; k++) {
      uint32_t word = 0;
      for (size_t i = 0; i < 32; i++) {
        word |= (uint32_t)(bytes[32 * k + i] >> p & 1) << i;
      }
      planes[p * num_words + k] = word;
    }
  }
}

/* `first` and `second` words of one lane: what meets a word of the input. */
static inline uint32_t bf_meet(size_t op, uint32_t x, uint32_t first, uint32_t second) {
  if (op == BF_PLANE_AND) {
    return x & first;
  }
  return op == BF_PLANE_XOR ? x ^ first : first & (x ^ second);
}

static inline void bf_dot_scalar(const bf_step *restrict step, const uint32_t *restrict x,
                                 const uint32_t *restrict w, uint32_t *restrict dots) {
  const size_t num_words = step->num_words, op = ((const bf_planes *)step->extra)->op;
  const size_t second = op == BF_PLANE_SELECT ? num_words * BF_LANES : 0;
  for (size_t i = 0; i < BF_LANES; i++) {
    dots[i] = 0;
  }
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      for (size_t k = 0; k < num_words; k++) {
        const uint32_t *lanes = w + (q * num_words + k) * BF_LANES;
        for (size_t i = 0; i < BF_LANES; i++) {
          const uint32_t met = bf_meet(op, x[p * num_words + k], lanes[i], lanes[i + second]);
          dots[i] += bf_popcount(met) << (p + q);
        }
      }
    }
  }
}

void bf_conv2d_bitserial__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share);

void bf_conv2d_bitserial__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share) {
  bf_convolve_planes(step, arena, share, bf_pack_scalar, bf_dot_scalar);
}
