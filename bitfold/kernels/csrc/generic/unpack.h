/* Panels of 1- to 4-bit weight indices as int8 codes, in plain C. packing.py describes the bytes.
 */
#ifndef BITFOLD_UNPACK_H
#define BITFOLD_UNPACK_H

#include "bitfold_kernels.h"

/* `bits` packed indices begin every 32 * bits bytes; the first register of them holds fields of
 * `width` bits: element 32 * j + i is field j mod (8 / width) of byte i of register j / (8 /
 * width).
 */
static inline unsigned bf_packed_field(const uint8_t *from, size_t j, size_t i, size_t width) {
  const size_t fields = 8 / width;
  return ((unsigned)from[j / fields * 32 + i] >> (j % fields * width)) & ((1u << width) - 1u);
}

static inline unsigned bf_packed_index(const uint8_t *from, size_t j, size_t i, size_t bits) {
  if (bits == 3) {
    return bf_packed_field(from, j, i, 2) | bf_packed_field(from + 64, j, i, 1) << 2;
  }
  return bf_packed_field(from, j, i, bits);
}

static inline void bf_expand_scalar(const bf_packed *restrict packed, const uint8_t *restrict panel,
                                    int8_t *restrict expanded) {
  for (size_t at = 0; at < packed->expanded_bytes; at += 256) {
    for (size_t j = 0; j < 8; j++) {
      for (size_t i = 0; i < 32; i++) {
        expanded[at + 32 * j + i] = packed->table[bf_packed_index(panel, j, i, packed->bits)];
      }
    }
    panel += 32 * packed->bits;
  }
}

#endif
