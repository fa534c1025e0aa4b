/*
 * random_block.h - random numbers by the million, one a call, drawn from a block that is filled in one go.
 *
 * Caller: the binding's bit generator for NumPy, whose C interface wants one function call a number and has no way to
 * report an error. Stands on random.h and prim.h.
 */
#ifndef DRP_RANDOM_BLOCK_H
#define DRP_RANDOM_BLOCK_H

#include <stdint.h>

struct random_block;

/*
 * One block of 16 KiB, filled: so a system without random numbers says so here. DRP_UNSUPPORTED: this kernel cannot
 * wipe memory in a forked child (before Linux 4.14). Give each thread its own block, or hold a lock around the draws.
 */
int random_block_open(struct random_block **out);
void random_block_close(struct random_block *block);

/*
 * The next number; block is a struct random_block *, spelled as NumPy's bitgen_t wants it. Every word handed out is
 * wiped from the block. A child of fork draws from a block of its own. If the kernel's generator answered when the
 * block was opened and fails later (a system call filter put on in between), the process is ended by abort(): there is
 * no way to report it, and a weak number is never the answer.
 */
uint64_t random_block_uint64(void *block);
uint32_t random_block_uint32(void *block);
double random_block_double(void *block); /* [0, 1), all multiples of 2^-53 alike */

#endif
