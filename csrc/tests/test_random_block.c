/*
 * test_random_block.c - random_block.c from inside: every word is handed out once and wiped, a child of fork never sees
 * its parent's, and a kernel that refuses ends the process.
 */
#include "random/random_block.c"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static struct random_block *open_block(void)
{
	struct random_block *block = NULL;
	REQUIRE(random_block_open(&block) == DRP_OK);
	return block;
}

static void each_word_comes_once_and_is_wiped(void)
{
	struct random_block *block = open_block();
	static uint32_t expected[WORD_COUNT];

	for (size_t i = 0; i < WORD_COUNT; i++)
		expected[i] = block->words[i];
	CHECK_EQ(block->left_words, WORD_COUNT);
	uint32_t left = WORD_COUNT;
	while (left >= 3) {
		uint64_t both = (uint64_t)expected[left - 1] << 32 | expected[left - 2];
		CHECK_EQ(random_block_uint64(block), both);
		CHECK_EQ(random_block_uint32(block), expected[left - 3]);
		left -= 3;
		CHECK_EQ(block->left_words, left);
		for (uint32_t i = left; i < left + 3; i++)
			CHECK_EQ(block->words[i], 0);
	}
	for (uint32_t i = left; i < WORD_COUNT; i++)
		CHECK_EQ(block->words[i], 0);
	random_block_close(block);
}

/* Over the end of a block, with one word left over and with none: always fresh words, never the wiped ones. */
static void an_empty_block_is_filled(uint32_t left)
{
	struct random_block *block = open_block();

	for (int i = 0; i < 100; i++) {
		block->left_words = left;
		CHECK(random_block_uint64(block) != 0); /* 2^-64 by chance */
		CHECK_EQ(block->left_words, WORD_COUNT - 2);
	}
	block->left_words = 0;
	(void)random_block_uint32(block);
	CHECK_EQ(block->left_words, WORD_COUNT - 1);
	random_block_close(block);
}

static void doubles_lie_in_their_range(void)
{
	struct random_block *block = open_block();
	double sum = 0, lowest = 1, highest = 0;
	enum { DRAWS = 1000000 };

	for (int i = 0; i < DRAWS; i++) {
		double number = random_block_double(block);
		CHECK(number >= 0 && number < 1);
		sum += number;
		lowest = number < lowest ? number : lowest;
		highest = number > highest ? number : highest;
	}
	CHECK(sum / DRAWS > 0.497 && sum / DRAWS < 0.503); /* 10 standard errors */
	CHECK(lowest < 0.0001 && highest > 0.9999);        /* e^-100 by chance */
	random_block_close(block);
}

static int in_child(int (*function)(struct random_block *), struct random_block *block)
{
	int status;
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(function(block));
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int look_around_in_child(struct random_block *block)
{
	CHECK_EQ(block->filled, 0);
	CHECK_EQ(block->left_words, 0);
	for (size_t i = 0; i < WORD_COUNT; i++)
		CHECK_EQ(block->words[i], 0);
	CHECK(random_block_uint64(block) != 0);
	CHECK_EQ(block->filled, 1);
	CHECK_EQ(block->left_words, WORD_COUNT - 2);
	return check_failures();
}

static void a_child_fills_its_own(void)
{
	struct random_block *block = open_block();
	uint64_t next = (uint64_t)block->words[WORD_COUNT - 1] << 32 | block->words[WORD_COUNT - 2];

	CHECK_EQ(in_child(look_around_in_child, block), 0);
	CHECK_EQ(random_block_uint64(block), next);
	random_block_close(block);
}

/* As a fork from a signal handler leaves it in the child: the count was read before, the words are gone. */
static void words_wiped_in_the_middle_are_noticed(void)
{
	struct random_block *block = open_block();

	for (int i = 0; i < WORD_COUNT; i++)
		block->words[i] = 0;
	block->filled = 0;
	CHECK(random_block_uint64(block) != 0);
	CHECK_EQ(block->left_words, WORD_COUNT - 2);
	random_block_close(block);
}

enum { NO_FILTERS = 77 };

static int draw_refused(struct random_block *block)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	struct random_block *another;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		return NO_FILTERS;
	if (random_block_open(&another) != DRP_SYSTEM)
		return 1;
	signal(SIGABRT, SIG_DFL);
	(void)random_block_uint64(block);
	return 2;
}

static void a_kernel_that_refuses_ends_the_process(void)
{
	struct random_block *block = open_block();
	int code = in_child(draw_refused, block);

	random_block_close(block);
	if (code == NO_FILTERS)
		SKIP("this kernel has no system call filters");
	CHECK_EQ(code, -SIGABRT);
}

int main(void)
{
	RUN(each_word_comes_once_and_is_wiped);
	RUN(an_empty_block_is_filled, 0);
	RUN(an_empty_block_is_filled, 1);
	RUN(doubles_lie_in_their_range);
	RUN(a_child_fills_its_own);
	RUN(words_wiped_in_the_middle_are_noticed);
	RUN(a_kernel_that_refuses_ends_the_process);
	return check_done();
}
