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

/* Blocks `blocks` of one group at output pixel `pixel`. */
static inline __attribute__((always_inline)) void bf_bitserial_pixel(
    const bf_step *restrict step, uint8_t *arena, const uint32_t *planes, uint32_t sum,
    bf_span blocks, size_t pixel, const bf_plane_dot dot) {
  const size_t per_group = step->group_lanes / BF_LANES;
  for (size_t block = blocks.begin; block < blocks.end; block++) {
    const char *panel = (const char *)step->weight + block * step->panel_bytes;
    const size_t lane = block * BF_LANES;
    const size_t group = block / per_group, o = block % per_group * BF_LANES;
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
  }
}

/* The share's groups, pixels and blocks of 16 channels. */
static inline __attribute__((always_inline)) void bf_convolve_planes(const bf_step *restrict step,
                                                                     uint8_t *arena,
                                                                     const bf_share *share,
                                                                     const bf_plane_packer pack,
                                                                     const bf_plane_dot dot) {
  const bf_conv_part part = bf_part_of_conv(step, share);
  const uint8_t *input = bf_padded_input(step, arena, share, &part);
  const size_t per_group = step->group_lanes / BF_LANES;
  const size_t copy_bytes = step->has_copy ? step->groups * bf_image_bytes(step) : 0;
  uint8_t *bytes = bf_scratch(step, arena, share) + (copy_bytes + 127) / 64 * 64;
  uint32_t *planes = (uint32_t *)(void *)(bytes + step->num_words * 32);
  bf_span blocks = part.blocks;
  while (blocks.begin < part.blocks.end) {
    const size_t group = blocks.begin / per_group, last = (group + 1) * per_group;
    const uint8_t *image = input + group * bf_image_bytes(step);
    blocks.end = last < part.blocks.end ? last : part.blocks.end;
    for (size_t pixel = part.rows.begin * step->ow; pixel < part.rows.end * step->ow; pixel++) {
      const uint32_t sum = bf_gather_window(step, bf_window(step, image, pixel), bytes);
      pack(bytes, step->num_words, step->x_planes, planes);
      bf_bitserial_pixel(step, arena, planes, sum, blocks, pixel, dot);
    }
    blocks.begin = blocks.end;
  }
}

#endif
