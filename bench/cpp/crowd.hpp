// Processes to look at.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <thread>
#include <vector>

namespace argus::bench {

// Children of one middle process, which leads a group of its own: they go with it, whatever happens to this one.
class Crowd {
public:
    // threads_each 0 = `sleep`, a program of its own, as most processes are; else copies of this one.
    Crowd(int processes, int threads_each) {
        int ready[2];
        if (pipe(ready) != 0) return;
        head_ = fork();
        if (head_ == 0) lead(ready[1], processes, threads_each);
        close(ready[1]);
        pid_t pid = 0;
        while (read(ready[0], &pid, sizeof pid) == sizeof pid) pids_.push_back(pid);
        close(ready[0]);
    }
    ~Crowd() {
        if (head_ <= 0) return;
        kill(-head_, SIGKILL);
        kill(head_, SIGKILL);
        while (waitpid(-1, nullptr, 0) > 0) {  // main() made itself the one who inherits them
        }
    }
    Crowd(const Crowd&) = delete;
    Crowd& operator=(const Crowd&) = delete;
    [[nodiscard]] int good() const { return static_cast<int>(pids_.size()); }
    [[nodiscard]] const std::vector<pid_t>& pids() const { return pids_; }
    void wake(std::size_t every = 1) const {  // each, or one in so many, runs a moment
        for (const int signal : {SIGSTOP, SIGCONT}) {
            for (std::size_t i = 0; i < pids_.size(); i += every) kill(pids_[i], signal);
        }
    }

private:
    [[noreturn]] static void lead(int ready, int processes, int threads_each) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < processes; ++i) {
            const pid_t child = fork();
            if (child < 0) break;
            if (child == 0) live(ready, threads_each);
            (void)!write(ready, &child, sizeof child);
        }
        close(ready);
        while (true) pause();
    }
    [[noreturn]] static void live(int ready, int threads_each) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fcntl(ready, F_SETFD, FD_CLOEXEC);
        if (threads_each == 0) {  // a program of its own; the pipe closes when it starts
            execlp("sleep", "sleep", "600", nullptr);
            _exit(1);
        }
        for (int i = 1; i < threads_each; ++i) std::thread([] { while (true) pause(); }).detach();
        close(ready);
        while (true) pause();
    }
    pid_t head_ = -1;
    std::vector<pid_t> pids_;
};

}  // namespace argus::bench
