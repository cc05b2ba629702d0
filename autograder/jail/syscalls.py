"""System call numbers of the two machine types that the filter knows (x86_64, aarch64), and their audit tags."""

from __future__ import annotations

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Since Linux 5.1 new calls have one number everywhere.
_COMMON = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "process_mrelease": 448,
}

_BY_MACHINE = """
            x86_64 aarch64
ioctl           16      29
shmget          29     194
semget          64     190
msgget          68     186
socket          41     198
connect         42     203
sendto          44     206
socketpair      53     199
clone           56     220
kill            62     129
ptrace         101     117
syslog         103     116
rt_sigqueueinfo 129    138
uselib         134       -
setpriority    141     140
sched_setparam 142     118
sched_setscheduler 144 119
vhangup        153      58
modify_ldt     154       -
pivot_root     155      41
adjtimex       159     171
chroot         161      51
acct           163      89
settimeofday   164     170
mount          165      40
umount2        166      39
swapon         167     224
swapoff        168     225
reboot         169     142
sethostname    170     161
setdomainname  171     162
iopl           172       -
ioperm         173       -
init_module    175     105
delete_module  176     106
quotactl       179      60
tkill          200     130
sched_setaffinity 203  122
lookup_dcookie 212      18
clock_settime  227     112
tgkill         234     131
kexec_load     246     104
add_key        248     217
request_key    249     218
keyctl         250     219
ioprio_set     251      30
migrate_pages  256     238
unshare        272      97
move_pages     279     239
rt_tgsigqueueinfo 297  240
perf_event_open 298    241
fanotify_init  300     262
prlimit64      302     261
name_to_handle_at 303  264
open_by_handle_at 304  265
clock_adjtime  305     266
setns          308     268
process_vm_readv 310   270
process_vm_writev 311  271
kcmp           312     272
finit_module   313     273
sched_setattr  314     274
seccomp        317     277
memfd_create   319     279
kexec_file_load 320    294
bpf            321     280
userfaultfd    323     282
"""


def numbers(machine: str) -> dict[str, int]:
    """System call name -> number on ``machine``."""
    lines = [line.split() for line in _BY_MACHINE.strip().splitlines()]
    column = lines[0].index(machine) + 1
    own = {line[0]: int(line[column]) for line in lines[1:] if line[column] != "-"}
    return {**_COMMON, **own}
