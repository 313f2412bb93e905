// Attention over the paged cache (inference) and over whole sequences (training).
#include "attention_tile.h"
//
#include "cached_attention.h"

#define ATTENTION_KERNELS \
  {"write_cache", write_cache}, {"latent_attention", latent_attention}, {"paged_attention", paged_attention},
