/*
 * prim_linux_vdso.c - finds a function in the vDSO: the small shared object of kernel code that the kernel maps into
 * every process. Reads memory only: no file, no lock, no allocation, no system call.
 *
 * Caller: random.c. What is read, all of it offsets into the image at AT_SYSINFO_EHDR:
 *
 *   ELF header -> program headers -> PT_LOAD     where the image wants to lie; the difference is the bias
 *                                 -> PT_DYNAMIC -> DT_SYMTAB, DT_STRTAB                   names and addresses
 *                                               -> DT_HASH, DT_GNU_HASH                   how many symbols there are
 *                                               -> DT_VERSYM, DT_VERDEF                   the version of each
 *
 * A name is only worth something together with its version: that pair, not the name, is the kernel's ABI. Newer images
 * have lost DT_HASH on some architectures, older ones have no DT_GNU_HASH, so either serves.
 */
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#include "os/prim.h"

enum { VERSYM_HIDDEN = 0x8000 };

struct image {
	uintptr_t bias;
	const ElfW(Sym) *symbols;
	const char *names;
	const uint32_t *hash, *gnu_hash;
	const ElfW(Versym) *versions;
	const ElfW(Verdef) *definitions;
};

static bool open_image(struct image *image)
{
	const ElfW(Ehdr) *header = (const void *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);
	const ElfW(Dyn) *dynamic = NULL;
	bool loaded = false;

	if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
		return false; /* none: some sandboxes and tracers hide it */
	const ElfW(Phdr) *segment = (const void *)((uintptr_t)header + header->e_phoff);
	for (unsigned i = 0; i < header->e_phnum; i++) {
		if (segment[i].p_type == PT_LOAD && !loaded) {
			image->bias = (uintptr_t)header + segment[i].p_offset - segment[i].p_vaddr;
			loaded = true;
		} else if (segment[i].p_type == PT_DYNAMIC) {
			dynamic = (const void *)((uintptr_t)header + segment[i].p_offset);
		}
	}
	if (!loaded || !dynamic)
		return false;
	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		const void *at = (const void *)(image->bias + dynamic->d_un.d_ptr);
		switch (dynamic->d_tag) {
		case DT_SYMTAB:
			image->symbols = at;
			break;
		case DT_STRTAB:
			image->names = at;
			break;
		case DT_HASH:
			image->hash = at;
			break;
		case DT_GNU_HASH:
			image->gnu_hash = at;
			break;
		case DT_VERSYM:
			image->versions = at;
			break;
		case DT_VERDEF:
			image->definitions = at;
			break;
		}
	}
	return image->symbols && image->names && image->versions && image->definitions;
}

/* DT_HASH says it outright; in DT_GNU_HASH the longest chain's end is the last symbol. */
static uint32_t symbol_count(const struct image *image)
{
	if (image->hash)
		return image->hash[1];
	if (!image->gnu_hash)
		return 0;
	const uint32_t bucket_count = image->gnu_hash[0], first = image->gnu_hash[1], bloom_words = image->gnu_hash[2];
	const uint32_t *buckets = image->gnu_hash + 4 + bloom_words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
	const uint32_t *chains = buckets + bucket_count;
	uint32_t last = 0;

	for (uint32_t i = 0; i < bucket_count; i++)
		if (buckets[i] > last)
			last = buckets[i];
	if (last < first)
		return 0;
	while (!(chains[last - first] & 1))
		last++;
	return last + 1;
}

static bool has_version(const struct image *image, uint32_t symbol, const char *version)
{
	const unsigned wanted = image->versions[symbol] & ~(unsigned)VERSYM_HIDDEN;
	const ElfW(Verdef) *definition = image->definitions;

	for (;;) {
		if (!(definition->vd_flags & VER_FLG_BASE) && definition->vd_ndx == wanted) {
			const ElfW(Verdaux) *name = (const void *)((uintptr_t)definition + definition->vd_aux);
			return strcmp(image->names + name->vda_name, version) == 0;
		}
		if (definition->vd_next == 0)
			return false;
		definition = (const void *)((uintptr_t)definition + definition->vd_next);
	}
}

void *prim_vdso_symbol(const char *name, const char *version)
{
	struct image image = {0};

	if (!open_image(&image))
		return NULL;
	for (uint32_t i = 0, count = symbol_count(&image); i < count; i++) {
		const ElfW(Sym) *symbol = &image.symbols[i];
		unsigned binding = symbol->st_info >> 4, type = symbol->st_info & 15;
		if (symbol->st_shndx == SHN_UNDEF || type != STT_FUNC || (binding != STB_GLOBAL && binding != STB_WEAK))
			continue;
		if (strcmp(image.names + symbol->st_name, name) == 0 && has_version(&image, i, version))
			return (void *)(image.bias + symbol->st_value);
	}
	return NULL;
}
