/* The loops around a bit-serial block: windows are gathered, cut into bit planes, then multiplied.
 *
 * Scratch behind the padded copy: the window's bytes (num_words * 32), then its planes
 * (x_planes, num_words) of 32-bit words.
 */
#ifndef BITFOLD_CONV2D_BITSERIAL_H
#define BITFOLD_CONV2D_BITSERIAL_H

#include "generic/epilogue.h"
#include "generic/geometry.h"

/* planes (x_planes, num_words) of the window bytes; ISA-specific. */
typedef void (*bf_plane_packer)(const uint8_t *restrict bytes, size_t num_words, size_t num_planes,
                                uint32_t *restrict planes);

/* dots[16] = sum over p, q, k of popcount(x[p][k] & w[q][k][lane]) << (p + q); ISA-specific. */
typedef void (*bf_plane_dot)(const bf_step *restrict step, const uint32_t *restrict x,
                             const uint32_t *restrict w, uint32_t *restrict dots);

static inline uint32_t bf_gather_window(const bf_step *restrict step, const uint8_t *window,
                                        uint8_t *restrict bytes) {
  const size_t run = step->kernel_w * step->group_c;
  const size_t size = run * step->kernel_h;
  uint32_t sum = 0;
  for (size_t i = 0; i < step->kernel_h; i++) {
    memcpy(bytes + i * run, window + i * step->padded_w * step->group_c, run);
  }
  memset(bytes + size, 0, step->num_words * 32 - size);
  for (size_t i = 0; i < size; i++) {
    sum += bytes[i];
  }
  return sum;
}

static inline __attribute__((always_inline)) void bf_bitserial_pixel(
    const bf_step *restrict step, uint8_t *arena, const uint32_t *planes, uint32_t sum,
    size_t group, size_t pixel, const bf_plane_dot dot) {
  const char *panel =
      (const char *)step->weight + group * (step->group_lanes / BF_LANES) * step->panel_bytes;
  for (size_t o = 0; o < step->group_o; o += BF_LANES) {
    const size_t lane = group * step->group_lanes + o;
    const size_t left = step->group_o - o;
    uint32_t dots[BF_LANES];
    int32_t acc[BF_LANES];
    dot(step, planes, (const uint32_t *)(const void *)panel, dots);
    for (size_t i = 0; i < BF_LANES; i++) {
      const uint32_t codes = (uint32_t)step->w_step * dots[i] + (uint32_t)step->w_lo * sum;
      acc[i] = (int32_t)((uint32_t)step->bias[lane + i] + (uint32_t)step->x_step * codes);
    }
    bf_finish(step, arena, acc, lane, left < BF_LANES ? left : BF_LANES,
              pixel * step->o + group * step->group_o + o);
    panel += step->panel_bytes;
  }
}

/* All groups, pixels and blocks of 16 channels. */
static inline __attribute__((always_inline)) void bf_convolve_planes(const bf_step *restrict step,
                                                                     uint8_t *arena,
                                                                     const bf_plane_packer pack,
                                                                     const bf_plane_dot dot) {
  const uint8_t *input = bf_padded_input(step, arena);
  const size_t copy_bytes = step->has_copy ? step->groups * bf_image_bytes(step) : 0;
  uint8_t *bytes = arena + step->scratch + (copy_bytes + 127) / 64 * 64;
  uint32_t *planes = (uint32_t *)(void *)(bytes + step->num_words * 32);
  for (size_t group = 0; group < step->groups; group++) {
    const uint8_t *image = input + group * bf_image_bytes(step);
    for (size_t pixel = 0; pixel < step->oh * step->ow; pixel++) {
      const uint32_t sum = bf_gather_window(step, bf_window(step, image, pixel), bytes);
      pack(bytes, step->num_words, step->x_planes, planes);
      bf_bitserial_pixel(step, arena, planes, sum, group, pixel, dot);
    }
  }
}

#endif
