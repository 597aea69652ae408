#include <aneforge.h>
