// All kernels, compiled once for each instruction set (see Makefile: -DFARTHING_ISA=amx|avx512|avx2|plain;
// amx is avx512 with a matrix unit).
// Everything but the table lives in a namespace of its own, so that no two compilations share a function.
#include "program.h"

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

namespace farthing {
namespace FARTHING_ISA {
#include "kernels/simd.h"
//
#include "kernels/tiles.h"
//
#include "kernels/elementwise.h"
//
#include "kernels/e4m3.h"
//
#include "kernels/e2m1.h"
//
#include "kernels/pack.h"
//
#include "kernels/fp8.h"
//
#include "kernels/attention.h"
#include "kernels/experts.h"
//
#include "kernels/product.h"
//
#include "kernels/outer.h"
//
#include "kernels/draw.h"
#include "kernels/linear.h"
//
#include "kernels/fp8_product.h"
//
#include "kernels/fp8_outer.h"
#include "kernels/loss.h"
#include "kernels/measure.h"
#include "kernels/optimizer.h"

static const KernelEntry table[] = {ATTENTION_KERNELS DRAW_KERNELS ELEMENTWISE_KERNELS EXPERT_KERNELS FP8_KERNELS LINEAR_KERNELS
                                        LOSS_KERNELS MEASURE_KERNELS OPTIMIZER_KERNELS PACK_KERNELS{nullptr, nullptr}};
}  // namespace FARTHING_ISA

const KernelEntry* JOIN(kernels_, FARTHING_ISA)() { return FARTHING_ISA::table; }

}  // namespace farthing
