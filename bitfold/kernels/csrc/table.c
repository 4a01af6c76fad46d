/* The kernel table, built from the manifest. */
#include "bitfold_kernels.h"

#define KERNEL(op, layout, isa, needs, symbol)                       \
  void symbol(const bf_step *restrict step, uint8_t *restrict arena, \
              const bf_share *restrict share);
#include "kernels.inc"
#undef KERNEL

const bf_row *bf_kernel_table(void) {
#define KERNEL(op, layout, isa, needs, symbol) {#op, #layout, #isa, needs, #symbol, symbol},
  static const bf_row rows[] = {
#include "kernels.inc"
      {NULL, NULL, NULL, NULL, NULL, NULL},
  };
#undef KERNEL
  return rows;
}
