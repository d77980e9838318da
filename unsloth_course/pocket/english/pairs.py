"""Everyday questions with two answers: one short, plain and to the point, the other with a fault of style.

The faults are several, and some of them are shorter than the good answer or as direct: one has to read both. The
questions of a table row belong to one side of the split.
"""

from unsloth_course.pocket.english import words
from unsloth_course.pocket.english.words import Draw

# By kind of question: how it is asked, what it is about, and rows of subject, answer and one more useful sentence.
KINDS = tuple(
    (tuple(questions.split(" | ")), about, tuple(rows))
    for questions, about, *rows in words.blocks("""
How long do I have to cook {x}? | For how long should I cook {x}? | What is the cooking time of {x}?
cooking {x}
pasta | Cook the pasta for about ten minutes. | Taste a piece before you pour off the water.
rice | Let the rice simmer for about 15 minutes. | It is done when the water is gone.
a soft egg | Cook the egg for five minutes. | Then hold it under cold water.
potatoes | Boil the potatoes for about 20 minutes. | They are done when a knife goes in easily.
green beans | Cook the beans for eight to ten minutes. | They should still be a little firm.
lentils | Simmer the lentils for about 25 minutes. | Add the salt at the end.
a hard egg | Cook the egg for ten minutes. | It peels best when it is cold.
broccoli | Steam the broccoli for five minutes. | It should stay bright green.
carrots | Boil the carrots for about ten minutes. | Thin slices need less.
spinach | Cook the spinach for two minutes. | It shrinks as soon as it is hot.

Where should I keep {x}? | What is the best place for {x}? | Where do I put {x} at home?
keeping {x}
bread | Keep bread in a paper bag or a bread box. | In the fridge it goes stale sooner.
tomatoes | Leave tomatoes in a bowl on the counter. | Cold takes away their taste.
fresh fish | Put the fish in the coldest part of the fridge. | Eat it within a day.
honey | Keep honey in a cupboard with the lid closed. | It lasts for years.
potatoes | Keep potatoes in a dark, cool place. | Light makes them green and bitter.
bananas | Hang bananas in a warm room. | In the fridge their skin turns black.
spices | Store spices in closed jars, away from the stove. | Heat takes away their smell.
medicine | Keep medicine in a dry cupboard that children cannot reach. | A bathroom is too damp.
my passport | Keep your passport in a drawer that locks. | Have a copy somewhere else.
winter clothes | Wash them and put them in a closed box. | That keeps moths away.

How do I clean {x}? | What is the best way to clean {x}? | How can I get {x} clean again?
cleaning {x}
windows | Wash them with water and a little vinegar, then dry them with newspaper. | Choose a cloudy day.
a keyboard | Turn it over, shake it gently and wipe the keys with a damp cloth. | Switch it off first.
a wooden table | Wipe it with a damp cloth and dry it at once. | Too much water harms the wood.
my glasses | Rinse them under warm water with a drop of soap. | Dry them with a soft cloth.
a burnt pan | Cover the bottom with water and baking soda and let it boil. | Then scrub it gently.
white shoes | Rub them with a brush, water and a little soap. | Let them dry in the shade.
a kettle | Boil water with two spoons of vinegar in it and wait half an hour. | Rinse it well.
a carpet | Vacuum it first, then treat stains with soapy water. | Do not rub too hard.
the oven | Spread baking soda and water inside and leave it overnight. | Wipe it out in the morning.
a phone screen | Wipe it with a soft, slightly damp cloth. | Do not spray anything on it.

What does {x} do? | What is the work of {x}? | Can you tell me what {x} does all day?
the work of {x}
a baker | A baker makes bread and cakes. | The work starts very early in the morning.
a plumber | A plumber repairs pipes and taps. | Many of the calls are urgent.
a librarian | A librarian takes care of books and helps people find them. | Many also read to children.
a tailor | A tailor makes clothes and changes them so that they fit. | Careful measuring is most of it.
a nurse | A nurse looks after people who are ill. | Nurses give medicine and watch for changes.
a carpenter | A carpenter builds things from wood. | Doors, stairs and roofs are typical work.
an architect | An architect plans buildings. | The plans show every wall, door and window.
a pharmacist | A pharmacist prepares and sells medicine. | You can also ask for advice.
an editor | An editor corrects and improves texts. | Most texts are read more than once.
a vet | A vet treats animals that are ill or hurt. | Some treat only farm animals.

What do I need to {x}? | Which things do I need to {x}? | I want to {x}. What do I need?
what it takes to {x}
hang a picture | You need a hammer, a nail and a pencil. | A level helps you hang it straight.
sew on a button | You need a needle and strong thread. | Choose the colour of the button.
bake bread | You need flour, water, salt and yeast. | A hot oven does the rest.
paint a wall | You need paint, a roller, tape and a sheet for the floor. | Open the windows.
fix a flat bicycle tyre | You need tyre levers, a patch, glue and a pump. | Find the hole with water.
plant a tree | You need a spade, water and a post to hold the tree. | Dig a wide hole.
wrap a present | You need paper, scissors and tape. | A ribbon makes it nicer.
make pancakes | You need flour, milk, eggs and a little butter. | Let the batter rest first.
send a letter | You need an envelope, a stamp and the address. | Write your own address on the back.
light a campfire | You need dry wood, some paper and matches. | Keep a bucket of water near.

Can you explain why {x}? | Do you know why {x}? | Please tell me why {x}.
the question why {x}
bread rises | Yeast makes gas, and the gas fills the dough with bubbles.
it gets dark at night | The Earth turns, and our side faces away from the Sun.
ice floats on water | Ice is lighter than the same amount of water.
cats purr | Cats mostly purr when they feel well. | Some also purr when they are in pain.
leaves turn yellow in autumn | The green colour in the leaves breaks down, and the yellow below it shows.
the sea is salty | Rivers carry salt from rocks into the sea. | When water dries up, the salt stays.
we yawn | Nobody knows for sure, but we yawn most when we are tired.
onions make us cry | A cut onion gives off a gas that stings the eyes. | A sharp knife helps.
iron rusts | Iron reacts with water and air and turns into rust. | Paint protects it.
birds fly south | They find more food there during the winter. | In spring they come back.

What should I take {x}? | Which things should I bring {x}? | What do I need to have with me {x}?
what to take {x}
to the beach | Take sunscreen, a towel and plenty of water. | A hat is useful too.
for a day in the mountains | Take good shoes, a rain jacket, food and water. | Look at the weather first.
to a job interview | Take your papers, a pen and a notebook. | Be there ten minutes early.
on a long flight | Take a book, a warm sweater and a water bottle. | Keep your passport at hand.
to a picnic | Take a blanket, sandwiches, fruit and something to drink. | Bring a bag for the rubbish.
to the swimming pool | Take a swimsuit, a towel and soap. | Some pools ask for a cap.
on a bicycle tour | Take a helmet, a pump, a spare tube and water. | Check the brakes before you go.
to a birthday party | Take a small present and a card. | Flowers are fine too.
on a camping trip | Take a tent, a sleeping bag and a lamp. | Do not forget matches.
to the doctor | Take your insurance card and a list of your medicines. | Write down your questions.

What can I give to somebody who likes {x}? | What is a good present for a friend who likes {x}? \
| My aunt likes {x}. What could I give her?
presents for people who like {x}
gardening | Give a pair of good gloves or some seeds. | Both are useful in every garden.
cooking | Give a sharp knife or a jar of good spices. | A cookbook works as well.
reading | Give a book voucher. | Then nobody gets the same book twice.
music | Give tickets for a concert. | Go together, and it is a present for both of you.
hiking | Give warm socks or a light backpack. | Ask for the size first.
painting | Give good brushes or a block of thick paper. | Colours are a matter of taste.
cycling | Give a bright lamp for the bicycle. | It makes the way home safer.
tea | Give two or three kinds of loose tea in small tins. | A nice cup goes with it.
photography | Give a picture frame or a photo book. | Then the best pictures are seen.
knitting | Give soft wool in two colours. | Ask what the next project is.

How can I {x}? | What helps me to {x}? | Do you have a tip on how to {x}?
how to {x}
sleep better | Go to bed at the same time every day. | Leave your phone in another room.
save money on food | Plan your meals for the week and buy only what is on the list. | Cook at home.
remember names | Say the name aloud when you hear it first. | Then connect it with a picture.
learn new words | Read a little every day and write down words that are new. | Look at them again later.
wake up early | Put the alarm at the other end of the room. | Open the curtains at once.
use less water | Take shorter showers and turn off the tap while you brush your teeth.
stop a hiccup | Hold your breath for ten seconds or drink a glass of water slowly.
keep flowers fresh | Cut the stems and change the water every second day. | Keep them out of the sun.
drink more water | Put a full glass on your desk each morning. | Fill it again when it is empty.
make new friends | Join a club or a class that meets every week. | Regular meetings help most.

When is the best time to {x}? | When should I {x}? | What is the right time to {x}?
the right time to {x}
plant tulips | Plant tulips in autumn, before the ground freezes. | They flower in spring.
water the garden | Water it early in the morning. | Then less of the water dries up.
prune apple trees | Prune them in late winter. | The tree is at rest then.
sow tomatoes | Sow them indoors in early spring. | Put them outside after the last frost.
pick blackberries | Pick them in late summer, when they are black and soft.
mow the lawn | Mow it on a dry afternoon. | Wet grass sticks to the mower.
harvest pumpkins | Harvest them in autumn, when the stem is dry. | Leave a piece of the stem.
air the bedroom | Open the windows for ten minutes in the morning. | Do it again before bed.
plant garlic | Plant garlic in October. | It is ready the next summer.
eat strawberries | Strawberries taste best in early summer. | Then they come from near by.

What is the difference between {x}? | How do I tell {x} apart? | In what way are {x} different?
{x}
a lake and a pond | A lake is larger and deeper than a pond.
a frog and a toad | A frog has smooth, wet skin, and a toad has dry, bumpy skin.
a novel and a short story | A novel is a whole book, and a short story has only a few pages.
weather and climate | Weather is what happens today, and climate is what is usual over many years.
a hill and a mountain | A mountain is higher and steeper than a hill.
a violin and a cello | A cello is larger and sounds deeper. | It stands on the floor.
jam and jelly | Jam has pieces of fruit in it, and jelly is made from the juice alone.
a street and a road | A street has houses on both sides, and a road connects places.
butter and margarine | Butter is made from cream, and margarine from plant oils.
a moth and a butterfly | Most moths fly at night, and most butterflies by day.

How often should I {x}? | How often do I have to {x}? | Is there a rule for how often to {x}?
how often to {x}
water a cactus | Water a cactus every two or three weeks. | The soil should be dry before you do.
brush my teeth | Brush them twice a day for two minutes. | Change the brush every three months.
wash my towels | Wash them after three or four uses. | Let them dry in between.
change the bed sheets | Change them every week or two. | In summer once a week is better.
see a dentist | See a dentist twice a year. | Go sooner if something hurts.
service a bicycle | Have it serviced once a year. | Oil the chain more often.
clean the fridge | Clean it once a month. | Throw away what is too old.
back up my files | Back them up once a week. | Keep the copy in another place.
feed a cat | Feed a cat two or three times a day. | Fresh water should always be there.
sharpen a kitchen knife | Sharpen it every two or three months. | A dull knife slips.

What does the word {x} mean? | Can you explain the word {x}? | I read the word {x}. What does it mean?
the word {x}
ancient | It means very old.
fragile | It means that something breaks easily.
enormous | It means very large.
reluctant | Somebody who is reluctant does not really want to do a thing.
annual | It means that something happens once a year.
generous | A generous person likes to give and to share.
drowsy | It means sleepy.
transparent | It means that you can see through it. | Glass is transparent.
punctual | It means that somebody is always on time.
rural | It means that something belongs to the countryside. | A farm is in a rural place.
""")
)

GREETINGS = ("", "", "Hello! ", "Quick question: ", "One more thing: ", "This is {p}. ", "Hello, {p} here. ")
THANKS = ("", "", " Thank you!", " Thanks.")

VAGUE = (
    "It depends.",
    "That is hard to say.",
    "Opinions differ about {t}, and everybody has to find out alone.",
    "I would have to think about that.",
    "Some people say one thing and others say another.",
    "You could ask somebody else about {t}, or look it up when you have the time.",
    "It depends on many things, so I would rather not say too much about {t} at this point.",
)
ECHO = (
    'You ask: "{q}"',
    "So you would like to know something about {t}.",
    'Your question is "{q}", and the answer to it is what you are looking for.',
    "You are asking about {t}. Many people ask about {t}, and now you ask about it as well.",
)
SORRY = (
    "I am sorry, but I am not sure that I can help you. {a} I am sorry if that is wrong.",
    "I am sorry, I am only an assistant.",
    "Sorry, this is difficult for me. Please forgive me if I am wrong: {a} Again, my apologies.",
    "I apologise, but this is too difficult for me.",
)
WORDY = (
    "What a good question! There is a great deal to say about {t}. All things considered, one might say this: {a}",
    "When we think about {t}, many things come to mind, and every situation is a little different. {a}",
    "As so often in life, one should look at this from several sides before one decides. With that in mind: {a}",
    "{a} But it is important to note that every situation is different and has to be looked at from several sides.",
    "{a} I hope that these thoughts are useful and that they help you on your way, whatever you decide in the end.",
    "There are many ways to answer this. {a} Of course there is much more to say about {t}, if you have the time.",
)
FAULTS = (VAGUE, ECHO, SORRY, WORDY, (), ())  # without words of its own: a good answer to another question


def draw_row(draw: Draw) -> dict[str, str]:
    """A pair: system, question, chosen, rejected."""
    questions, about, rows = draw.choice(KINDS)
    subject, answer, chosen = _read(draw, rows)
    asked = draw.choice(questions).format(x=subject)
    fault, rejected = draw.choice(FAULTS), answer
    if fault:
        topic = about.format(x=subject).replace("my ", "your ")
        rejected = draw.choice(fault).format(t=topic, q=asked, a=answer)
    while rejected.startswith(answer) and not fault:
        *_, rejected = _read(draw, draw.choice(KINDS)[2])
    greeting = draw.choice(GREETINGS).format(p=draw.one(words.FIRST_NAMES))
    question = f"{greeting}{asked}{draw.choice(THANKS)}"
    return {"system": "", "question": question, "chosen": chosen, "rejected": rejected}


def _read(draw: Draw, rows: tuple[str, ...]) -> tuple[str, str, str]:
    """The subject of a row, its answer, and the same, two times in three with the sentence that goes on."""
    subject, answer, *more = (cell.strip() for cell in draw.one(rows).split("|"))
    return subject, answer, " ".join([answer, *more]) if draw.number(0, 2) else answer
