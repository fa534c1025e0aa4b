/*
 * hash.h - SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; one compression round and
 * three finalisation rounds, as in Rust's and CPython's tables): keyed, so that nobody outside can choose keys that
 * collide.
 *
 * Callers: cache (one secret for each cache).
 */
#ifndef DRP_HASH_H
#define DRP_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t hash_rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void hash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = hash_rotate(v[1], 13) ^ v[0];
	v[3] = hash_rotate(v[3], 16) ^ v[2];
	v[0] = hash_rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = hash_rotate(v[1], 17) ^ v[2];
	v[3] = hash_rotate(v[3], 21) ^ v[0];
	v[2] = hash_rotate(v[2], 32);
}

__attribute__((always_inline)) static inline uint64_t hash_bytes(const uint64_t secret[2], const void *data, size_t bytes)
{
	const unsigned char *at = data;
	uint64_t v[4] = {
		secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du,
		secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u,
	};
	uint64_t word;
	size_t left = bytes;

	for (; left >= 8; left -= 8, at += 8) {
		memcpy(&word, at, 8);
		v[3] ^= word;
		hash_round(v);
		v[0] ^= word;
	}
	word = 0;
	if (left > 0 && bytes >= 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
		memcpy(&word, at + left - 8, 8); /* the last 8 bytes, less those that were taken: no loop by byte */
		word >>= 64 - 8 * left;
	} else {
		for (size_t i = 0; i < left; i++)
			word |= (uint64_t)at[i] << (8 * i);
	}
	word |= (uint64_t)bytes << 56;
	v[3] ^= word;
	hash_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	hash_round(v);
	hash_round(v);
	hash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
