// Attention over the paged cache (inference) and over whole sequences (training).
#include "attention_tile.h"
//
#include "latent_row.h"
//
#include "cached_unit.h"
//
#include "cached_attention.h"
//
#include "causal_operand.h"
//
#include "causal_attention.h"
#include "causal_attention_backward.h"

#define ATTENTION_KERNELS                                                                                           \
  {"write_cache", write_cache}, {"write_latent", write_latent}, {"latent_attention", latent_attention},           \
      {"paged_attention", paged_attention}, {"causal_attention", causal_attention}, {"causal_attention_backward", causal_attention_backward},
