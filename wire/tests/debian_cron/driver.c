/* Drives the clock of Debian's cron: its own parser, its own main loop, but time passes as fast as it can.
 *
 * record.py compiles this together with Debian's source, in which `main`, `time`, `sleep` and `access` are renamed to
 * the functions here, as are those that would touch the machine. What cron would start is counted, not started.
 *
 * usage: driver FIRST LAST [show] < expressions     (seconds since 1970; TZ is the time zone)
 * For each expression one line: `refused`, or how often it fired after FIRST and up to LAST, and the digest of these
 * minutes; with `show` the minutes themselves, as seconds since 1970.
 */
#include "cron.h"
#include <pwd.h>

struct firings {
	long count;
	long last; /* in minutes since 1970: a job that is started twice in one minute counts once */
	unsigned long long digest;
};

static long now, last_second;
static int show;
static user tab;
static entry **entries; /* a null pointer for a line that cron refuses */
static struct firings *firings;
static long lines;

/* FNV-1a over the minute's eight bytes, the lowest first. */
static unsigned long long digest(unsigned long long hash, unsigned long long minute)
{
	for (int byte = 0; byte < 8; byte++, minute >>= 8)
		hash = (hash ^ (minute & 0xff)) * 0x100000001b3ULL;
	return hash;
}

static void finish(void)
{
	for (long line = 0; line < lines; line++) {
		if (!entries[line])
			printf("refused\n");
		else if (!show)
			printf("%ld %016llx\n", firings[line].count, firings[line].digest);
	}
	exit(0);
}

time_t fake_time(time_t *result)
{
	if (result)
		*result = now;
	return now;
}

unsigned fake_sleep(unsigned seconds)
{
	now += seconds;
	if (now / 60 > last_second / 60)
		finish();
	return 0;
}

/* cron looks whether the machine was started before: it was. */
int fake_access(const char *path, int mode) { return 0; }
void fake_acquire_daemonlock(int close) {}
void fake_set_cron_uid(void) {}
void fake_set_cron_cwd(void) {}
void fake_log_it(char *who, int pid, char *event, char *detail) {}
void fake_log_close(void) {}

void load_database(cron_db *db) { db->head = db->tail = &tab; }
void check_orphans(cron_db *db) {}
int job_runqueue(void) { return 0; }

void job_add(entry *fired, user *owner)
{
	struct firings *these = &firings[fired->uid]; /* `uid` holds the line's number */
	if (these->last == now / 60)
		return;
	these->last = now / 60;
	these->count++;
	these->digest = digest(these->digest, these->last);
	if (show)
		printf("%ld\n", these->last * 60);
}

/* Has cron's own parser read the line, which needs a command behind the expression. */
static entry *read_entry(const char *expression)
{
	static struct passwd nobody = { .pw_name = "nobody", .pw_dir = "/", .pw_shell = "/bin/sh" };
	char line[1000];
	int length = snprintf(line, sizeof line, "%s command\n", expression);
	FILE *file = fmemopen(line, length, "r");
	entry *read = load_entry(file, NULL, &nobody, env_init());
	fclose(file);
	return read;
}

int main(int argc, char **argv)
{
	static char *arguments[] = { "cron", "-f", NULL };
	char line[900];

	now = atol(argv[1]);
	last_second = atol(argv[2]);
	show = argc > 3;
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		entries = realloc(entries, (lines + 1) * sizeof *entries);
		firings = realloc(firings, (lines + 1) * sizeof *firings);
		firings[lines] = (struct firings){ 0, -1, 0xcbf29ce484222325ULL };
		entries[lines] = read_entry(line);
		if (entries[lines]) {
			entries[lines]->uid = lines;
			entries[lines]->next = tab.crontab;
			tab.crontab = entries[lines];
		}
		lines++;
	}
	return cron_main(2, arguments);
}
